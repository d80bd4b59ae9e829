// SPDX-License-Identifier: Apache-2.0
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { FastFreezeError, toErrorRecord } from '../base/errors.js';
import { checkBundleName } from '../criu/runtime/bundle.js';
import type { Ensured } from '../criu/runtime/ensure.js';
import { ensureRuntime } from '../criu/runtime/ensure.js';
import type { InstallOptions } from '../criu/runtime/install-runtime.js';
import { isPrivileged } from '../criu/runtime/privilege.js';
import { parseSum } from '../criu/runtime/receive.js';
import { reportTools } from '../criu/runtime/tool.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';

const HELP = `Usage: fastfreeze install [OPTIONS]

Make sure that there is a CRIU that works here. One that works already is used. Otherwise a private
one is made of Debian packages, in a folder of its own; nothing of the system is changed, and no root
is needed. docs/install.md tells the details.

Options:
  --dir DIR        install into DIR (default: /opt/fastfreeze as root, else ~/.local/share/fastfreeze)
  --force          make a new one although one works already
  --mirror URL     the Debian archive to fetch from (default: the one that apt uses here)
  --bundle FILE    then pack the runtime into FILE (.tar.xz, .tar.zst or .tar.gz) and print its SHA-256
  --from FILE|URL  install a bundle (a path, file:, http: or https:) instead of Debian packages
  --sha256 HEX     the sum of that bundle; it is verified before anything is unpacked
  --no-check       install even if it does not work on this machine, as when building a container image
  --json           print the result as one JSON object on standard output
  -v, --verbose    name every program that is run
  -h, --help       show this

Environment:
  FF_HOME          replaces the default folders
  FF_CRIU          a CRIU that is used instead of any other

Exit status:
  0    there is a CRIU that works, or the bundle is written
  2    the command line is wrong
  130  interrupted; nothing is left behind
  170  it failed; what was installed before is unchanged
`;

export const installCommand: Command = {
  name: 'install',
  summary: 'make sure that there is a CRIU that works here',
  help: HELP,
  run: async (args) => {
    const flags = parseFlags(args);
    const stop = new AbortController();
    const interrupt = (): void => stop.abort();
    process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
    try {
      report(await install(flags, stop.signal), flags.json);
      return EXIT.ok;
    } catch (error) {
      if (stop.signal.aborted) return INTERRUPTED;
      if (!flags.json) throw error;
      const record = toErrorRecord(error);
      process.stdout.write(`${JSON.stringify({ ok: false, error: record }, null, 2)}\n`);
      return record.code === 'usage' ? EXIT.usage : EXIT.failed;
    } finally {
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
    }
  },
};

const INTERRUPTED = 130;

interface Flags {
  readonly dir: string | undefined;
  readonly mirror: string | undefined;
  readonly bundle: string | undefined;
  readonly source: InstallOptions['bundle'];
  readonly force: boolean;
  readonly skipCheck: boolean;
  readonly json: boolean;
  readonly verbose: boolean;
}

function parseFlags(args: readonly string[]): Flags {
  const values = parseWords(args);
  const { dir, mirror, bundle, from, sha256 } = values;
  if (from !== undefined && sha256 === undefined) {
    throw usage('--from needs --sha256 HEX', 'the sum that `install --bundle` printed; it is also in FILE.sha256');
  }
  if (from === undefined && sha256 !== undefined)
    throw usage('--sha256 belongs to --from', 'fastfreeze install --help');
  if (from !== undefined && mirror !== undefined)
    throw usage('--from and --mirror exclude each other', 'use one of them');
  if (dir === '') throw usage('--dir is empty', 'give the directory');
  // Now, not after all has been fetched.
  if (bundle !== undefined) checkBundleName(bundle);
  return {
    dir: dir === undefined ? undefined : resolve(dir),
    mirror,
    bundle,
    source: from === undefined || sha256 === undefined ? undefined : { from, sha256: parseSum(sha256) },
    force: values.force,
    skipCheck: values['no-check'],
    json: values.json,
    verbose: values.verbose.length > 0,
  };
}

function parseWords(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      strict: true,
      allowPositionals: false,
      options: {
        dir: { type: 'string' },
        mirror: { type: 'string' },
        bundle: { type: 'string' },
        from: { type: 'string' },
        sha256: { type: 'string' },
        force: { type: 'boolean', default: false },
        'no-check': { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        verbose: { type: 'boolean', short: 'v', multiple: true, default: [] },
      },
    }).values;
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error), 'fastfreeze install --help');
  }
}

function usage(reason: string, hint: string): FastFreezeError {
  return new FastFreezeError({ code: 'usage', op: 'understand the options of install', reason, hint });
}

async function install(flags: Flags, signal: AbortSignal): Promise<Ensured> {
  const say = (message: string): void => void process.stderr.write(`[ff.install] ${message}\n`);
  if (flags.verbose) reportTools((words) => say(`+ ${words.join(' ')}`));
  return await ensureRuntime({
    env: process.env,
    privileged: isPrivileged(),
    force: flags.force,
    skipCheck: flags.skipCheck,
    onStep: say,
    signal,
    ...(flags.dir === undefined ? {} : { home: flags.dir }),
    ...(flags.source === undefined ? {} : { bundle: flags.source }),
    ...(flags.bundle === undefined ? {} : { bundleFile: flags.bundle }),
    ...(flags.mirror === undefined ? {} : { mirror: flags.mirror }),
  });
}

function report(outcome: Ensured, json: boolean): void {
  const { action, runtime, installation, bundle } = outcome;
  if (json) {
    const packages = installation === undefined ? {} : { packages: installation.packages, tested: installation.tested };
    const all = { ok: true, action, runtime, ...packages, ...(bundle === undefined ? {} : { bundle }) };
    process.stdout.write(`${JSON.stringify(all, null, 2)}\n`);
    return;
  }
  const where = runtime.root ?? runtime.command.join(' ');
  const verb = { found: 'works already', installed: 'is installed', 'already-installed': 'is installed already' }[
    action
  ];
  process.stdout.write(`CRIU ${runtime.version} ${verb}: ${where}\n`);
  if (runtime.warning !== undefined) process.stderr.write(`Warning: ${runtime.warning}\n`);
  if (installation !== undefined && !installation.tested.tested) {
    const { differences } = installation.tested;
    const shown = differences.length > 3 ? [...differences.slice(0, 3), `${differences.length - 3} more`] : differences;
    process.stderr.write(`Note: not the tested set of packages (${shown.join(', ') || 'none is recorded'})\n`);
  }
  if (bundle !== undefined) process.stdout.write(`${bundle.sha256}  ${bundle.path} (${bundle.sizeBytes} bytes)\n`);
}
