// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../base/log.js';
import { type BindOptions, bindFiles, makeBindSource, refuseBinds } from '../container/file-binds.js';
import type { ChangedFile, FileHasher, ReadFile } from '../container/read-files.js';
import { type Carried, changed as changedMeanwhile, createCarrier } from '../files/carry.js';
import { wrongRoot } from '../files/roots.js';
import { unpackCarried } from '../files/unpack.js';
import type { ImageReader } from '../image/reader.js';
import type { ImageWriter } from '../image/writer.js';
import type { CarriedFiles } from './app-record.js';
import { unlessCalledOff } from './checkpoint/called-off.js';
import type { SupervisorConfig } from './config.js';

export interface Carrying {
  /** Files in the image so far. */
  readonly taken: ReadonlyMap<string, unknown>;
  /** Put files into the image while the application runs: it only reads them. */
  take(paths: readonly string[]): Promise<void>;
  /**
   * Put in what it has opened since, now that it stands still. Returns the files that it reads, each with the hash of what
   * is in the image. Throws `conflict`, as something that passes, where one is not any more what was taken.
   */
  complete(reads: readonly ReadFile[]): Promise<{ readonly reads: ReadFile[]; readonly carried: CarriedFiles }>;
}

/**
 * Begin to take along the files that the application only reads. The signal ends it: the rest of what is being read may be read
 * still, into memory of nobody's; a synchronous call that hangs, to open or look at a file, is waited for.
 */
export function startCarrying(writer: ImageWriter, hasher: FileHasher, signal: AbortSignal): Carrying {
  const taken = new Map<string, ReadFile>();
  const carrier = createCarrier(writer, signal);
  const add = async (path: string): Promise<void> => {
    // A restore would refuse to put it there.
    if (taken.has(path) || wrongRoot(path) !== undefined) return;
    const carried: Carried | undefined = await carrier.add(path, (stat) => hasher.recall(path, stat));
    if (carried !== undefined) taken.set(path, hasher.remember(path, carried.stat, carried.sha256));
  };
  return {
    taken,
    async take(paths) {
      for (const path of paths) await unlessCalledOff(signal, add(path));
      // An application that is frozen must not wait for what is still on its way.
      await unlessCalledOff(signal, writer.settled());
    },
    async complete(reads) {
      const files: ReadFile[] = [];
      for (const read of reads) {
        await unlessCalledOff(signal, add(read.path));
        const file = taken.get(read.path) ?? read;
        if (!isSame(file, read)) throw changedMeanwhile(read.path);
        files.push(file);
      }
      return { reads: files, carried: carrier.end() };
    },
  };
}

function isSame(file: ReadFile, read: ReadFile): boolean {
  const isHashed = !read.sampled && !file.sampled;
  return file.sizeBytes === read.sizeBytes && file.mode === read.mode && (!isHashed || file.sha256 === read.sha256);
}

/** Files of the image in the place of those that this machine has, or lacks. */
export interface Replacements {
  /** What the image does not have either. */
  readonly left: readonly ChangedFile[];
  /**
   * Throw the `conflict` of `bind` as far as it can be known before: `coming` are the files and directories that are made in
   * between.
   */
  check(coming: readonly string[]): void;
  /** Show them to the application. Throws `conflict` where that cannot be. Returns their paths. */
  bind(): string[];
}

/** Unpack what differs here of `reads`, verified, beside everything that is there: this machine's files stay as they are. */
export async function unpackReplacements(
  { config, log }: { readonly config: SupervisorConfig; readonly log: Logger },
  image: ImageReader,
  { reads, changed }: { readonly reads: readonly ReadFile[]; readonly changed: readonly ChangedFile[] },
  progress: (bytes: number) => void,
): Promise<Replacements> {
  if (changed.length === 0) return { left: [], check: () => undefined, bind: () => [] };
  const source = makeBindSource(config.temporaryDirectory ?? config.jobDirectory);
  const wanted = changed.map(({ file }) => file).filter((file) => !file.sampled);
  const found = await unpackCarried(image, wanted, source.path, progress);
  const files = [...found].map(([path, unpacked]) => ({ path, source: unpacked }));
  const options: BindOptions = {
    workDirectory: source.path,
    kept: reads.map(({ path }) => path).filter((path) => !changed.some(({ file }) => file.path === path)),
    privileged: config.criu.privileged,
    allowInexact: config.allowInexact,
  };
  return {
    left: changed.filter(({ file }) => !found.has(file.path)),
    check: (coming) => refuseBinds(files, options, coming),
    bind: () => {
      for (const directory of bindFiles(files, options)) {
        log.warn(
          `${directory} lacks what the application reads in it and shows what is in the image: nothing can be made or removed ` +
            'right in it while the job runs here',
        );
      }
      source.hide();
      const paths = files.map(({ path }) => path);
      for (const { file, reason } of changed) log.debug(`${file.path} is that of the image: ${reason}`);
      if (paths.length > 0) log.info(`The application sees ${numbered(paths)} of the image, not of this machine`);
      return paths;
    },
  };
}

function numbered([first = '', ...others]: readonly string[]): string {
  return others.length === 0 ? first : `${first} and ${others.length} more`;
}
