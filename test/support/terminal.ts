// SPDX-License-Identifier: Apache-2.0
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import type { Bed } from './bed.js';
import { PATH_OF_JOBS, type Place } from './place.js';
import { fastfreeze, fixture, PYTHON } from './stage.js';
import { until } from './until.js';

interface Report {
  readonly pid?: number;
  readonly out?: string;
  readonly settings?: unknown;
  readonly exit?: number;
  readonly before?: unknown;
  readonly after?: unknown;
}

/** How a program on a terminal ended, and the terminal's settings before and after. */
export interface TerminalEnd {
  readonly code: number;
  readonly before: unknown;
  readonly after: unknown;
}

/** A `fastfreeze` command (or another program) on a pseudo-terminal, by way of pty-driver.py. */
export class Terminal {
  readonly #child: ChildProcess;
  readonly #reports: Report[] = [];
  #pending = '';
  #errors = '';

  constructor(
    bed: Bed,
    place: Place,
    args: readonly string[],
    rows = 30,
    columns = 100,
    env: Readonly<Record<string, string>> = {},
    command: readonly string[] = fastfreeze(),
  ) {
    const words = [PYTHON, fixture('pty-driver.py'), String(rows), String(columns), ...command, ...args];
    const [program = '', ...rest] = place.command(words, { TERM: 'xterm', ...env });
    this.#child = spawn(program, rest, {
      stdio: ['pipe', 'pipe', 'pipe'],
      cwd: bed.path('work'),
      env: { PATH: PATH_OF_JOBS },
    });
    this.#child.stdout?.on('data', (data: Buffer) => this.#take(data.toString()));
    this.#child.stderr?.on('data', (data: Buffer) => (this.#errors += data.toString()));
  }

  #take(text: string): void {
    this.#pending += text;
    const lines = this.#pending.split('\n');
    this.#pending = lines.pop() ?? '';
    for (const line of lines) this.#reports.push(JSON.parse(line) as Report);
  }

  /** The PID of the command on the terminal. */
  async pid(): Promise<number> {
    return await until('the PID', () => this.#reports.find((r) => r.pid !== undefined)?.pid);
  }

  /** All that appeared on the screen. */
  get screen(): string {
    return Buffer.concat(this.#reports.map((r) => Buffer.from(r.out ?? '', 'hex'))).toString('utf8');
  }

  async shows(pattern: RegExp, timeoutMs?: number): Promise<void> {
    await until(
      `${String(pattern)} on the terminal`,
      () => {
        if (pattern.test(this.screen)) return true;
        const end = this.#reports.find((r) => r.exit !== undefined);
        if (end !== undefined)
          throw new Error(`ended with ${end.exit ?? ''} before ${String(pattern)}:\n${this.screen}`);
        return false;
      },
      timeoutMs,
      () => this.screen + this.#errors,
    );
  }

  #order(order: Record<string, unknown>): void {
    this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
  }

  /** Types bytes. */
  type(text: string): void {
    this.#order({ send: Buffer.from(text, 'latin1').toString('hex') });
  }

  resize(rows: number, columns: number): void {
    this.#order({ size: [rows, columns] });
  }

  hangUp(): void {
    this.#order({ hangup: true });
  }

  async ends(timeoutMs?: number): Promise<TerminalEnd> {
    const report = await until(
      'the end',
      () => this.#reports.find((r) => r.exit !== undefined),
      timeoutMs,
      () => this.screen + this.#errors,
    );
    return { code: report.exit ?? -1, before: report.before, after: report.after };
  }
}
