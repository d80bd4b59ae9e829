// SPDX-License-Identifier: Apache-2.0
import type { Bed } from './bed.js';
import type { FixtureCase } from './cases.js';
import type { Job } from './job.js';
import { checkLines } from './lines.js';
import { fixture, PYTHON } from './stage.js';
import { until } from './until.js';

/** Several fixtures as one job, each with its own numbered lines. One of them alone is the job itself. */
export class Together {
  constructor(readonly cases: readonly FixtureCase[]) {}

  get name(): string {
    return this.cases.map((one) => one.name).join('; ');
  }

  command(bed: Bed, stopFile: string): readonly string[] {
    const commands = this.cases.map((one) => one.command(bed, stopFile));
    const [only] = commands;
    if (only !== undefined && commands.length === 1) return only;
    return [PYTHON, fixture('together.py'), JSON.stringify(commands)];
  }

  /** Waits until each of the fixtures has printed `count` more complete lines than now. */
  async progresses(job: Job, count: number): Promise<void> {
    const before = this.#counts(job.stdout);
    let missing: string[] = [];
    await until(
      `${count} more lines of each fixture`,
      () => {
        const now = this.#counts(job.stdout);
        missing = this.cases.filter((_, at) => (now[at] ?? 0) < (before[at] ?? 0) + count).map((one) => one.name);
        if (missing.length > 0 && !job.running) throw new Error(`the job ended before ${missing.join(', ')} went on`);
        return missing.length === 0;
      },
      undefined,
      () => `no such lines from: ${missing.join(', ')}`,
    );
  }

  /** Throws when a line of any of them was lost, repeated or cut, or the last is not "done". */
  checkLines(output: string): void {
    for (const [at, stream] of this.#streams(output).entries()) {
      try {
        checkLines(stream);
      } catch (error) {
        throw new Error(`the lines of ${this.cases[at]?.name ?? '?'}`, { cause: error });
      }
    }
  }

  /** Complete lines of each; often asked for, so no text is kept. */
  #counts(output: string): number[] {
    if (this.cases.length === 1) return [output.split('\n').length - 1];
    const counts = this.cases.map(() => 0);
    for (const [, number = ''] of output.matchAll(/^(\d+):.*\n/gmu)) {
      const at = Number(number);
      counts[at] = (counts[at] ?? 0) + 1;
    }
    return counts;
  }

  #streams(output: string): string[] {
    if (this.cases.length === 1) return [output];
    const streams = this.cases.map(() => '');
    const lines = output.split(/(?<=\n)/);
    for (const line of lines) {
      const [, number = '', text = ''] = /^(\d+):([^]*)$/.exec(line) ?? [];
      const stream = streams[Number(number)];
      if (number === '' || stream === undefined) {
        // What is being written at this moment may not have its colon yet.
        if (!line.endsWith('\n') && line === lines.at(-1)) break;
        throw new Error(`a line of no fixture: ${JSON.stringify(line)}`);
      }
      streams[Number(number)] = stream + text;
    }
    return streams;
  }
}
