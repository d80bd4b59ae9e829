// SPDX-License-Identifier: Apache-2.0
import { dirname } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { OpenFile } from '../container/open-files.js';
import { type CapturedFiles, captureFiles } from '../files/capture.js';
import { isBelow, joinRoots, realPath, wrongRoot } from '../files/roots.js';
import { type StagedFiles, stageFiles } from '../files/stage.js';
import type { ImageReader } from '../image/reader.js';
import type { ImageWriter } from '../image/writer.js';
import { parseFileUrl } from '../store/file-url.js';
import { isFileUrl } from '../store/store.js';
import type { AppRecord, PreservedFiles } from './app-record.js';
import type { Preserve, SupervisorConfig } from './config.js';

/** What was asked for once stays: a checkpoint from a script must not forget what `run` was told. */
export function joinPreserve(one: Preserve, other: Preserve | undefined): Preserve {
  if (other === undefined) return one;
  return {
    paths: joinRoots([...one.paths, ...other.paths]),
    openFiles: one.openFiles || other.openFiles,
    mapped: one.mapped || other.mapped,
  };
}

/** What an image was asked to take along. */
export function preserveOf({ files, carried }: AppRecord): Preserve {
  return { paths: files?.paths ?? [], openFiles: files?.openFiles ?? false, mapped: carried !== undefined };
}

/** Throws `usage` where files could be taken along, and not be shown to the application afterwards. */
export function refuseCarrying(preserve: Preserve | undefined, container: boolean): void {
  if (preserve?.mapped !== true || container) return;
  throw new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: '--carry-mapped',
    reason: 'only in a container of its own can the application be shown other files than this machine has',
    hint: 'leave out --no-container, or use --preserve-path, which brings files back to their places',
  });
}

export interface Preserving {
  /** Resolves when all files are in the image; undefined when none are to be. */
  readonly done: Promise<PreservedFiles | undefined>;
  /** Resolves when nothing of it touches the image any more. Never rejects. */
  stop(): Promise<void>;
}

/** Begin to put the application's files into an image. It must stand still until all are in it. */
export function preserveFiles(options: {
  readonly preserve: Preserve;
  readonly openFiles: readonly OpenFile[];
  readonly config: SupervisorConfig;
  readonly imageUrls: readonly string[];
  readonly writer: ImageWriter;
  readonly log: Logger;
}): Preserving {
  const { preserve, config, writer, log } = options;
  const open = preserve.openFiles ? options.openFiles.map(({ path }) => path).filter((path) => !wrongRoot(path)) : [];
  const stopped = new AbortController();
  const capture = async (): Promise<PreservedFiles | undefined> => {
    if (preserve.paths.length === 0 && !preserve.openFiles) return undefined;
    const captured: CapturedFiles = await captureFiles({
      writer,
      roots: [...preserve.paths, ...open],
      except: notTheApplications(config, options.imageUrls),
      warn: (message) => log.warn(message),
      signal: stopped.signal,
    });
    const except = config.preserveExcept.map(realPath);
    return {
      paths: preserve.paths,
      openFiles: preserve.openFiles,
      ...captured,
      ...(except.length === 0 ? {} : { except }),
    };
  };
  const done = capture();
  return {
    done,
    stop: async () => {
      stopped.abort();
      await done.catch(() => undefined);
    },
  };
}

/** Bring an image's files to this machine's disks, beside those that are there, and no further. */
export async function stagePreserved(
  config: SupervisorConfig,
  image: ImageReader,
  files: PreservedFiles,
  log: Logger,
  progress: (bytes: number) => void,
): Promise<StagedFiles> {
  return await stageFiles(
    {
      image,
      roots: files.roots,
      except: notTheApplications(config, [config.imageUrl]),
      preserveSetuid: config.preserveSetuid,
      warn: (message) => log.warn(message),
    },
    progress,
  );
}

/** Whether a file comes back with the image: what was left out by name does not. */
export function isPreserved(path: string, files: Pick<PreservedFiles, 'roots' | 'except'> | undefined): boolean {
  const isIn = (root: string): boolean => path === root || isBelow(path, root);
  const isLeftOut = (root: string): boolean =>
    files?.except?.some((one) => isIn(one) && (one === root || isBelow(one, root))) === true;
  return files?.roots.some((root) => isIn(root) && !isLeftOut(root)) === true;
}

/** What a restore needs as it is now, and the image does not have; undefined when there is no such thing. */
export function adviceOnOpenFiles(
  openFiles: readonly OpenFile[],
  files: PreservedFiles | undefined,
): string | undefined {
  const left = openFiles.filter(({ path }) => !isPreserved(path, files));
  const [first] = left;
  if (first === undefined) return undefined;
  const others = left.length === 1 ? '' : ` and ${left.length - 1} more`;
  return (
    `The application has ${first.path}${others} open for writing, not in the image: ` +
    'a restore needs such files as they are now. --preserve-open-files takes them along'
  );
}

/** Throws `usage` for paths that lie where the images are: nothing of them would travel. */
export function refuseOverlap(paths: readonly string[], imageUrl: string): void {
  if (!isFileUrl(imageUrl)) return;
  const images = realPath(parseFileUrl(imageUrl));
  const path = paths.find((one) => realPath(one) === images || isBelow(realPath(one), images));
  if (path === undefined) return;
  throw new FastFreezeError({
    code: 'usage',
    op: 'preserve',
    subject: path,
    reason: `the images are to lie there, in ${images}`,
    hint: 'give the images a directory of their own; it may lie within the preserved one',
  });
}

/** Images, and what else of ours may lie among the application's files (an image must not hold itself), and what was left out by name. */
function notTheApplications(config: SupervisorConfig, imageUrls: readonly string[]): string[] {
  const images = imageUrls.filter(isFileUrl).map(parseFileUrl);
  const ours = [
    ...images,
    ...config.preserveExcept,
    ...config.ownOutputs,
    dirname(config.jobDirectory),
    config.logDirectory,
  ];
  if (config.temporaryDirectory !== undefined) ours.push(config.temporaryDirectory);
  if (config.spoolDirectory !== undefined) ours.push(config.spoolDirectory);
  if (config.metricsPath !== undefined) ours.push(config.metricsPath);
  return ours.map(realPath);
}
