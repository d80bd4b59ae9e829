// SPDX-License-Identifier: Apache-2.0
import { constants } from 'node:fs';
import { access, mkdir, readdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { AptFailure, aptFailure } from './apt-failure.js';
import type { ToolResult } from './tool.js';
import { runTool } from './tool.js';

export interface AptOptions {
  /** A private folder for everything apt writes. */
  readonly folder: string;
  readonly mirror: string;
  readonly suite: string;
  readonly signal?: AbortSignal;
}

/** A private apt: its own sources, lists, cache and an empty list of installed packages. */
export interface PrivateApt {
  /** The version of a package that the suite offers. */
  versionOf(name: string): Promise<string>;
  /** Fetch packages with all they depend on, signatures checked; resolves to the .deb files. */
  download(names: readonly string[]): Promise<string[]>;
  /** Fetch one package without what it depends on. */
  downloadAlone(name: string): Promise<string>;
}

const UPDATE_TIMEOUT_MS = 180_000;
const DOWNLOAD_TIMEOUT_MS = 300_000;
const ASK_TIMEOUT_MS = 60_000;

/** Make a private apt for one suite of one mirror and fetch its lists. Touches nothing of the system's. */
export async function openPrivateApt(options: AptOptions): Promise<PrivateApt> {
  const archives = join(options.folder, 'cache/archives');
  await mkdir(join(options.folder, 'lists/partial'), { recursive: true });
  await mkdir(join(archives, 'partial'), { recursive: true });
  await writeFile(join(options.folder, 'status'), '');
  await writeFile(join(options.folder, 'sources.list'), await sourceLine(options));
  await writeFile(join(options.folder, 'apt.conf'), configuration(options.folder));

  const run = async (op: string, program: string, args: readonly string[], timeoutMs: number): Promise<ToolResult> => {
    const signal = options.signal === undefined ? {} : { signal: options.signal };
    const command = [program, '-c', join(options.folder, 'apt.conf'), ...args];
    const result = await runTool(command, { timeoutMs, cwd: options.folder, ...signal });
    if (!result.ok) throw aptFailure(op, options, result);
    return result;
  };
  await run('fetch the package lists of', 'apt-get', ['-qq', 'update'], UPDATE_TIMEOUT_MS);
  return {
    versionOf: async (name) => {
      const args = ['show', '--no-all-versions', name];
      const shown = await run('look up the version of CRIU in', 'apt-cache', args, ASK_TIMEOUT_MS);
      const version = /^Version: (\S+)$/m.exec(shown.stdout)?.[1];
      if (version !== undefined) return version;
      throw nothing('look up the version of', name);
    },
    download: async (names) => {
      const args = ['-qq', '-y', '--no-install-recommends', '--download-only', 'install', ...names];
      await run('download CRIU from', 'apt-get', args, DOWNLOAD_TIMEOUT_MS);
      return await debFiles(archives);
    },
    downloadAlone: async (name) => {
      // `apt-get download` writes into the working directory.
      await run('download', 'apt-get', ['-qq', 'download', name], DOWNLOAD_TIMEOUT_MS);
      const file = (await debFiles(options.folder)).find((path) => basename(path).startsWith(`${name}_`));
      if (file !== undefined) return file;
      throw nothing('download', name);
    },
  };
}

function nothing(op: string, subject: string): AptFailure {
  return new AptFailure('suite', { code: 'host', op, subject, reason: 'apt has nothing of that name' });
}

async function debFiles(folder: string): Promise<string[]> {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.deb')).sort();
  return files.map((name) => join(folder, name));
}

const KEYRINGS = ['debian-archive-keyring.gpg', 'debian-archive-keyring.pgp'].map(
  (name) => `/usr/share/keyrings/${name}`,
);

async function sourceLine(options: AptOptions): Promise<string> {
  const keyring = await firstReadable(KEYRINGS);
  // Without that file apt checks against the keys it trusts in general; it never goes unchecked.
  const signedBy = keyring === undefined ? '' : ` signed-by=${keyring}`;
  return `deb [arch=amd64${signedBy}] ${options.mirror} ${options.suite} main\n`;
}

async function firstReadable(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    const readable = await access(path, constants.R_OK).then(
      () => true,
      () => false,
    );
    if (readable) return path;
  }
  return undefined;
}

/** Read after the machine's own configuration, so proxies and credentials stay and what is set here wins. */
function configuration(folder: string): string {
  const quoted = (path: string): string => `"${join(folder, path)}"`;
  return [
    `Dir::State ${quoted('.')};`,
    `Dir::State::Lists ${quoted('lists')};`,
    `Dir::State::Status ${quoted('status')};`,
    `Dir::Cache ${quoted('cache')};`,
    `Dir::Cache::Archives ${quoted('cache/archives')};`,
    // Images often switch the binary caches off; with one the four apt calls do not parse 60 000 packages each.
    `Dir::Cache::pkgcache ${quoted('cache/pkgcache.bin')};`,
    `Dir::Etc::SourceList ${quoted('sources.list')};`,
    'Dir::Etc::SourceParts "/dev/null";',
    'Dir::Etc::Preferences "/dev/null";',
    'Dir::Etc::PreferencesParts "/dev/null";',
    'APT::Architecture "amd64";',
    'APT::Architectures { "amd64"; };',
    // The folder is private, so the user _apt could not write there.
    'APT::Sandbox::User "root";',
    // A list that could not be fetched is an error, not a warning.
    'APT::Update::Error-Mode "any";',
    'APT::Get::AllowUnauthenticated "false";',
    'Acquire::AllowInsecureRepositories "false";',
    'Acquire::AllowDowngradeToInsecureRepositories "false";',
    'Acquire::Languages "none";',
    'Acquire::Retries "2";',
    'Acquire::http::Timeout "20";',
    'Acquire::https::Timeout "20";',
    // Hooks of the machine clean or announce the machine's own state.
    '#clear APT::Update::Pre-Invoke;',
    '#clear APT::Update::Post-Invoke;',
    '#clear APT::Update::Post-Invoke-Success;',
    '#clear DPkg::Pre-Invoke;',
    '#clear DPkg::Post-Invoke;',
    '#clear DPkg::Pre-Install-Pkgs;',
    '',
  ].join('\n');
}
