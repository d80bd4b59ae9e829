// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { asFastFreezeError } from '../base/errors.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { takePassphrase } from './passphrase.js';

/** Loaders, not imports: `fastfreeze status` should not pay for what only `run` needs. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  run: async () => (await import('./run.js')).runCommand,
  batch: async () => (await import('./batch.js')).batchCommand,
  checkpoint: async () => (await import('./checkpoint.js')).checkpointCommand,
  extract: async () => (await import('./extract.js')).extractCommand,
  list: async () => (await import('./list.js')).listCommand,
  verify: async () => (await import('./verify.js')).verifyCommand,
  cp: async () => (await import('./cp.js')).cpCommand,
  prune: async () => (await import('./prune.js')).pruneCommand,
  inspect: async () => (await import('./inspect.js')).inspectCommand,
  wait: async () => (await import('./wait.js')).waitCommand,
  status: async () => (await import('./status.js')).statusCommand,
  daemon: async () => (await import('./daemon.js')).daemonCommand,
  install: async () => (await import('./install.js')).installCommand,
  doctor: async () => (await import('./doctor.js')).doctorCommand,
};

/** The tool's entry: picks the command, prints help, errors and their remedy. Resolves to the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  takePassphrase();
  const [name, ...args] = argv;
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    const topic = name === 'help' ? args[0] : undefined;
    const load = topic === undefined ? undefined : loaderOf(topic);
    process.stdout.write(load === undefined ? await overview() : (await load()).help);
    return name === undefined ? EXIT.usage : EXIT.ok;
  }
  if (name === '--version' || name === '-V') {
    process.stdout.write(`fastfreeze ${packageVersion()}\n`);
    return EXIT.ok;
  }
  const load = loaderOf(name);
  if (load === undefined) {
    printError(
      `unknown command '${name}'`,
      `fastfreeze --help lists the commands: ${Object.keys(COMMANDS).join(', ')}`,
    );
    return EXIT.usage;
  }
  try {
    const command = await load();
    const ownArgs = (await command.ownWords?.(args)) ?? beforeDashes(args);
    if (ownArgs.includes('--help') || (ownArgs.length === 1 && ownArgs[0] === '-h')) {
      process.stdout.write((await command.helpOf?.(ownArgs)) ?? command.help);
      return EXIT.ok;
    }
    return await command.run(args);
  } catch (error) {
    const known = asFastFreezeError(error, name);
    printError(known.message, known.hint);
    if (process.env['FF_DEBUG'] !== undefined && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`);
    return known.code === 'usage' ? EXIT.usage : EXIT.failed;
  }
}

/** Not what every object has: `constructor` is no command. */
function loaderOf(name: string): (() => Promise<Command>) | undefined {
  return Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
}

function beforeDashes(args: readonly string[]): readonly string[] {
  return args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
}

function printError(message: string, hint: string | undefined): void {
  process.stderr.write(`Error: ${message}\n`);
  if (hint !== undefined) process.stderr.write(`Try: ${hint}\n`);
}

async function overview(): Promise<string> {
  const rows = await Promise.all(Object.values(COMMANDS).map(async (load) => await load()));
  const width = Math.max(...rows.map((row) => row.name.length));
  const lines = rows.map((row) => `  ${row.name.padEnd(width)}  ${row.summary}`);
  return [
    'fastfreeze: freeze a long job into storage, continue it anywhere.',
    '',
    'Usage: fastfreeze COMMAND [OPTIONS]',
    '',
    ...lines,
    '',
    "'fastfreeze COMMAND --help' shows a command's options and exit codes.",
    '',
  ].join('\n');
}

function packageVersion(): string {
  const path = new URL('../../package.json', import.meta.url);
  const parsed: unknown = JSON.parse(readFileSync(path, 'utf8'));
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed ? String(parsed.version) : 'unknown';
}
