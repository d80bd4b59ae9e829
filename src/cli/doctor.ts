// SPDX-License-Identifier: Apache-2.0
import { parseArgs } from 'node:util';
import { FastFreezeError } from '../base/errors.js';
import { examineHost } from '../criu/runtime/doctor/examine.js';
import type { Row } from '../criu/runtime/doctor/row.js';
import { isPrivileged } from '../criu/runtime/privilege.js';
import { stateDirectory } from '../engine/state.js';
import type { Command } from './command.js';
import { EXIT } from './exit-codes.js';

const HELP = `Usage: fastfreeze doctor [--json]

Examine whether jobs can be frozen on this machine by this user, and say what to do where not. The last
row, canary, freezes a real process and thaws it. Nothing is changed and nothing is left behind.

Options:
  --json       print one JSON object on standard output:
               {"ok": true, "rows": [{"name", "status", "detail", "remedy"}]}
               status is ok, warn or fail; remedy is there when it is not ok.
  -h, --help   show this

Exit status:
  0    jobs can be frozen here (there may be warnings)
  2    the command line is wrong
  130  interrupted; nothing is left behind
  170  jobs cannot be frozen here: a row says fail
`;

export const doctorCommand: Command = {
  name: 'doctor',
  summary: 'examine whether jobs can be frozen here, and what to do where not',
  help: HELP,
  run: async (args) => {
    const json = wantsJson(args);
    const stop = new AbortController();
    const interrupt = (): void => stop.abort();
    process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
    try {
      const rows = await examineHost({
        env: process.env,
        privileged: isPrivileged(),
        stateDirectory: () => stateDirectory(process.env),
        signal: stop.signal,
        onRow: json ? () => undefined : print,
      });
      return conclude(rows, json);
    } catch (error) {
      if (stop.signal.aborted) return INTERRUPTED;
      throw error;
    } finally {
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
    }
  },
};

const INTERRUPTED = 130;

function wantsJson(args: readonly string[]): boolean {
  try {
    return parseArgs({ args: [...args], options: { json: { type: 'boolean', default: false } } }).values.json;
  } catch (error) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'understand the options of doctor',
      reason: error instanceof Error ? error.message : String(error),
      hint: 'fastfreeze doctor --help',
    });
  }
}

const NAME_WIDTH = 15;

function print(row: Row): void {
  process.stdout.write(`${row.status.padEnd(4)}  ${row.name.padEnd(NAME_WIDTH)}  ${row.detail}\n`);
  if (row.remedy !== undefined) process.stdout.write(`${' '.repeat(NAME_WIDTH + 8)}Try: ${row.remedy}\n`);
}

function conclude(rows: readonly Row[], json: boolean): number {
  const ok = rows.every((row) => row.status !== 'fail');
  if (json) process.stdout.write(`${JSON.stringify({ ok, rows }, null, 2)}\n`);
  else process.stdout.write(ok ? '\nJobs can be frozen here.\n' : '\nJobs cannot be frozen here; see what failed.\n');
  return ok ? EXIT.ok : EXIT.failed;
}
