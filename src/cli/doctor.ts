// SPDX-License-Identifier: Apache-2.0
import { parseArgs } from 'node:util';
import { FastFreezeError } from '../base/errors.js';
import { examineHost } from '../criu/runtime/doctor/examine.js';
import type { Row } from '../criu/runtime/doctor/row.js';
import { isPrivileged } from '../criu/runtime/privilege.js';
import { lookOver } from '../engine/look-over.js';
import { stateDirectory } from '../engine/state.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';

const HELP = `Usage: fastfreeze doctor [--json] [PID]

Examine whether jobs can be frozen on this machine by this user, and say what to do where not. The last
row, canary, freezes a real process and thaws it. Nothing is changed and nothing is left behind.

With PID, look over that process and all below it instead: what of them could not be frozen, or
would not come back exactly, if they ran under fastfreeze. They are not stopped.

Options:
  --json       print one JSON object on standard output:
               {"ok": true, "rows": [{"name", "status", "detail", "remedy"}]}
               status is ok, warn or fail; remedy is there when it is not ok.
  -h, --help   show this

Exit status:
  0    jobs, or the process, can be frozen here (there may be warnings)
  2    the command line is wrong
  130  interrupted; nothing is left behind
  170  they cannot: a row says fail; or there is no such process
`;

export const doctorCommand: Command = {
  name: 'doctor',
  summary: 'examine whether jobs can be frozen here, and what to do where not',
  help: HELP,
  run: async (args) => {
    const { json, pid } = understand(args);
    if (pid !== undefined) return lookAt(pid, json);
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
      return conclude(rows, json, ['Jobs can be frozen here.', 'Jobs cannot be frozen here; see what failed.']);
    } catch (error) {
      if (stop.signal.aborted) return INTERRUPTED;
      throw error;
    } finally {
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
    }
  },
};

const INTERRUPTED = 130;

function understand(args: readonly string[]): { json: boolean; pid: number | undefined } {
  try {
    const options = { json: { type: 'boolean', default: false } } as const;
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true });
    const [word, extra] = positionals;
    if (extra !== undefined) throw new Error(`one PID is enough: ${extra}`);
    if (word !== undefined && !/^[1-9]\d{0,9}$/.test(word)) throw new Error(`${JSON.stringify(word)} is no PID`);
    return { json: values.json, pid: word === undefined ? undefined : Number(word) };
  } catch (error) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'understand the options of doctor',
      reason: error instanceof Error ? error.message : String(error),
      hint: 'fastfreeze doctor --help',
    });
  }
}

function lookAt(pid: number, json: boolean): number {
  const rows = lookOver(pid, isPrivileged());
  if (!json) rows.forEach(print);
  return conclude(rows, json, [
    'Nothing is seen that would keep it from being frozen.',
    'It cannot be frozen as it is.',
  ]);
}

const NAME_WIDTH = 15;

function print(row: Row): void {
  process.stdout.write(`${row.status.padEnd(4)}  ${row.name.padEnd(NAME_WIDTH)}  ${row.detail}\n`);
  if (row.remedy !== undefined) process.stdout.write(`${' '.repeat(NAME_WIDTH + 8)}Try: ${row.remedy}\n`);
}

function conclude(rows: readonly Row[], json: boolean, [good, bad]: readonly [string, string]): number {
  const ok = rows.every((row) => row.status !== 'fail');
  process.stdout.write(json ? `${JSON.stringify({ ok, rows }, null, 2)}\n` : `\n${ok ? good : bad}\n`);
  return ok ? EXIT.ok : EXIT.failed;
}
