// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CriuRuntime } from '../find.js';
import type { ToolResult } from '../tool.js';
import { runTool, whyFailed } from '../tool.js';
import { COUNTER, DUMP_SCRIPT, RESTORE_SCRIPT } from './canary-scripts.js';
import type { ExamineOptions } from './examine.js';
import { containerCommand } from './namespaces.js';
import type { Row } from './row.js';
import { fail, ok } from './row.js';

const STEP_TIMEOUT_MS = 30_000;
/** PIDs of jobs start above 999; a restore leaves those of the image alone. */
const PID_BEFORE_DUMP = 999;
const PID_BEFORE_RESTORE = 5000;

/** Freeze a real process and thaw it in a second container: what all the other rows only predict. */
export async function examineCanary(runtime: CriuRuntime | undefined, options: ExamineOptions): Promise<Row> {
  if (runtime === undefined) return fail('canary', 'not tried: there is no CRIU that works', 'fastfreeze install');
  const folder = await mkdtemp(join(tmpdir(), 'fastfreeze-canary-'));
  try {
    await mkdir(join(folder, 'image'));
    await writeFile(join(folder, 'counter'), COUNTER);
    const started = Date.now();
    const dumped = await inContainer(DUMP_SCRIPT, PID_BEFORE_DUMP, 'dump', runtime, folder, options);
    if (!dumped.ok) return await failure('frozen', dumped, 'dump.log', folder);
    const frozenAt = await linesOf(folder);
    const restored = await inContainer(RESTORE_SCRIPT, PID_BEFORE_RESTORE, 'restore', runtime, folder, options);
    if (!restored.ok) return await failure('thawed', restored, 'restore.log', folder);
    const wrong = whatIsWrong(await linesOf(folder), frozenAt.length);
    if (wrong !== undefined) return fail('canary', `a process was thawed, but ${wrong}`, REPORT);
    return ok('canary', `a process was frozen, thawed and continued exactly (${Date.now() - started} ms)`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const REPORT = 'run it again; if it stays so, report it with this output';

async function inContainer(
  script: string,
  lastPid: number,
  verb: 'dump' | 'restore',
  runtime: CriuRuntime,
  folder: string,
  options: ExamineOptions,
): Promise<ToolResult> {
  const shell = existsSync('/bin/bash') ? 'bash' : 'sh';
  const criu = [...runtime.command, verb, '--images-dir', join(folder, 'image'), '--log-file', `${verb}.log`];
  if (!options.privileged) criu.push('--unprivileged');
  if (verb === 'restore') criu.push('--restore-detached');
  const words = [...containerCommand(options.privileged), shell, '-c', script, shell, folder, String(lastPid), ...criu];
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  return await runTool(words, { timeoutMs: STEP_TIMEOUT_MS, env: options.env, cwd: folder, ...signal });
}

async function linesOf(folder: string): Promise<string[]> {
  const text = await readFile(join(folder, 'out'), 'utf8').catch(() => '');
  return text.split('\n').filter((line) => line !== '');
}

/** Every number once and in order, all by the same PID, some of them after the thaw, then the end. */
export function whatIsWrong(lines: readonly string[], frozenAt: number): string | undefined {
  const counted = lines.slice(0, -1);
  if (lines.at(-1) !== 'end') return 'it did not end when it was told to';
  if (counted.length < frozenAt + 3) return 'it did not continue';
  const pid = String(PID_BEFORE_DUMP + 1);
  const strange = counted.find((line, index) => line !== `${index + 1} ${pid}`);
  return strange === undefined ? undefined : `it continued wrongly: '${strange}' in its output`;
}

/** Complaints that come with every run in a user namespace, and the summary at the end, tell nothing. */
const SAYS_NOTHING = /RLIMIT_NOFILE|net: Unexpected error: -1\(Operation|umping FAILED|Restoring FAILED/;

async function failure(wanted: string, result: ToolResult, log: string, folder: string): Promise<Row> {
  const text = await readFile(join(folder, 'image', log), 'utf8').catch(() => '');
  const errors = text.split('\n').filter((line) => line.includes('Error (') && !SAYS_NOTHING.test(line));
  const told = errors[0]?.replace(/^.*?Error \([^)]*\): /, '').trim();
  const detail = `a process could not be ${wanted}: ${told ?? SCRIPT_FAILURES[result.exitCode ?? 0] ?? whyFailed(result)}`;
  return fail('canary', detail, 'see the rows above that are not ok; else try: fastfreeze install --force');
}

/** What the scripts' own exit codes mean. */
const SCRIPT_FAILURES: Readonly<Record<number, string>> = {
  90: 'the temporary folder cannot be entered in the container',
  91: 'PIDs cannot be chosen (ns_last_pid)',
  92: 'the process did not start in 5 seconds',
  94: 'it does not run on after the restore',
  95: 'it did not end when it was told to',
};
