// SPDX-License-Identifier: Apache-2.0
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FastFreezeError } from '../../base/errors.js';
import { AptFailure, notDebian } from './apt-failure.js';
import type { PrivateApt } from './apt.js';
import { openPrivateApt } from './apt.js';
import { PACKAGES_FILE } from './layout.js';
import { writeLicenses } from './licenses.js';
import { findMirrors } from './mirror.js';
import type { PackageRecord, PackageSet } from './packages.js';
import { sha256OfFile } from './packages.js';
import type { ToolResult } from './tool.js';
import { runTool, whyFailed } from './tool.js';
import { WANTED_VERSION, compareVersions, upstreamVersion } from './version.js';

export interface BuildOptions {
  /** An empty folder, for all that is temporary. */
  readonly workFolder: string;
  /** Where the tree goes. */
  readonly root: string;
  readonly mirror?: string;
  readonly onStep: (message: string) => void;
  readonly signal?: AbortSignal;
}

/** CRIU and the codecs that the engine loads; apt adds what they depend on. */
const WANTED_PACKAGES = ['criu', 'liblz4-1', 'libzstd1', 'libxxhash0'];
/** Where to look for a CRIU that is new enough, the newest first. */
const SUITES = ['sid', 'testing', 'stable'];

/** Fetch CRIU with all it needs from the machine's Debian mirror and unpack it into a folder of its own. */
export async function buildRuntime(options: BuildOptions): Promise<PackageSet> {
  const mirrors = options.mirror === undefined ? await findMirrors(options.signal) : [options.mirror];
  if (mirrors.length === 0) throw notDebian();
  const offer = await bestOffer(mirrors, options);
  options.onStep(`downloading CRIU ${offer.version} from ${offer.mirror} (${offer.suite})`);
  const files = await offer.apt.download(WANTED_PACKAGES);
  options.onStep(`unpacking ${files.length} packages`);
  const packages: PackageRecord[] = [];
  for (const file of files) packages.push(await unpack(file, options.root, options));
  await prune(options.root);
  packages.push(await addCommonLicenses(offer.apt, options));
  packages.sort((left, right) => (left.name < right.name ? -1 : 1));
  const set: PackageSet = {
    format: 1,
    criuVersion: upstreamVersion(offer.version),
    suite: offer.suite,
    architecture: 'amd64',
    packages,
  };
  await writeFile(join(options.root, PACKAGES_FILE), `${JSON.stringify(set, null, 2)}\n`);
  await writeLicenses(options.root, packages);
  return set;
}

interface Offer {
  readonly apt: PrivateApt;
  readonly mirror: string;
  readonly suite: string;
  readonly version: string;
}

/** The first suite with a CRIU that can do everything, else the newest that was seen. */
async function bestOffer(mirrors: readonly string[], options: BuildOptions): Promise<Offer> {
  let best: Offer | undefined;
  let firstError: unknown;
  for (const [index, mirror] of mirrors.entries()) {
    for (const suite of SUITES) {
      const folder = join(options.workFolder, `apt-${index}-${suite}`);
      options.onStep(`reading the package lists of ${mirror} (${suite})`);
      try {
        const apt = await openPrivateApt({ folder, mirror, suite, ...signalOf(options) });
        const version = await apt.versionOf('criu');
        if (compareVersions(upstreamVersion(version), WANTED_VERSION) >= 0) return { apt, mirror, suite, version };
        if (best === undefined || compareVersions(upstreamVersion(version), upstreamVersion(best.version)) > 0) {
          best = { apt, mirror, suite, version };
        }
      } catch (error) {
        options.signal?.throwIfAborted();
        const scope = error instanceof AptFailure ? error.scope : 'machine';
        if (scope === 'machine') throw error;
        // The first one tells most: it is of the mirror and suite that should have worked.
        firstError ??= error;
        if (scope === 'mirror') break;
      }
    }
  }
  if (best !== undefined) return best;
  throw firstError instanceof Error ? firstError : notDebian();
}

const UNPACK_TIMEOUT_MS = 60_000;

async function unpack(file: string, root: string, options: BuildOptions): Promise<PackageRecord> {
  const common = { timeoutMs: UNPACK_TIMEOUT_MS, ...signalOf(options) };
  const shown = await runTool(['dpkg-deb', '--show', '--showformat', '${Package} ${Version}', file], common);
  const [name, version] = shown.stdout.split(' ');
  if (!shown.ok || name === undefined || version === undefined) throw unpackFailure(file, shown);
  await mkdir(root, { recursive: true });
  const unpacked = await runTool(['dpkg-deb', '--extract', file, root], common);
  if (!unpacked.ok) throw unpackFailure(file, unpacked);
  return { name, version, sha256: await sha256OfFile(file) };
}

function unpackFailure(file: string, result: ToolResult): FastFreezeError {
  const subject = basename(file);
  // What failed in the end is tar; what it says of the disk comes before.
  if (!/No space left|quota exceeded/i.test(result.stderr)) {
    return new FastFreezeError({ code: 'host', op: 'unpack', subject, reason: whyFailed(result) });
  }
  const hint = 'free 150 MB, or name another folder with --dir DIR';
  return new FastFreezeError({ code: 'host', op: 'unpack', subject, reason: 'the disk is full', hint });
}

/** Two thirds of the tree are texts and character sets that CRIU never opens. Licences stay. */
const UNUSED = ['usr/share/man', 'usr/share/locale', 'usr/share/lintian', 'usr/lib/x86_64-linux-gnu/gconv'];

async function prune(root: string): Promise<void> {
  for (const folder of UNUSED) await rm(join(root, folder), { recursive: true, force: true });
  const documents = join(root, 'usr/share/doc');
  for (const entry of await readdir(documents, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    for (const name of await readdir(join(documents, entry.name))) {
      if (name !== 'copyright') await rm(join(documents, entry.name, name), { recursive: true });
    }
  }
}

const COMMON_LICENSES = 'usr/share/common-licenses';

/** Debian's copyright files refer to the GPL and others by a path that another package holds. */
async function addCommonLicenses(apt: PrivateApt, options: BuildOptions): Promise<PackageRecord> {
  const aside = join(options.workFolder, 'base-files');
  const record = await unpack(await apt.downloadAlone('base-files'), aside, options);
  await rename(join(aside, COMMON_LICENSES), join(options.root, COMMON_LICENSES));
  const copyright = join('usr/share/doc', record.name, 'copyright');
  await mkdir(dirname(join(options.root, copyright)), { recursive: true });
  await rename(join(aside, copyright), join(options.root, copyright));
  return record;
}

function signalOf(options: BuildOptions): { signal?: AbortSignal } {
  return options.signal === undefined ? {} : { signal: options.signal };
}
