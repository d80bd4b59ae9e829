// SPDX-License-Identifier: Apache-2.0
// stdin, stdout and stderr over freezes: not one byte is lost, repeated or cut.
import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { inTurn } from '../support/in-turn.js';
import { Choices, FULL } from '../support/random.js';
import { signalPid } from '../support/processes.js';
import { fixture, PYTHON } from '../support/stage.js';
import { errorCode, sleep, until } from '../support/until.js';

const numbers = (from: number, to: number): string =>
  Array.from({ length: to - from }, (_, i) => `${from + i}\n`).join('');
const seen = (to: number): string => `ready\n${Array.from({ length: to }, (_, i) => `saw ${i}\n`).join('')}end ${to}\n`;

/** What flood.py writes to stdout. */
const flood = (count: number): string =>
  `${Array.from({ length: count }, (_, i) => `${i} the quick brown fox\n`).join('')}end\n`;

function expectSameText(got: string, wanted: string): void {
  if (got === wanted) return;
  let at = 0;
  while (got[at] === wanted[at]) at += 1;
  const around = (text: string): string => JSON.stringify(text.slice(Math.max(0, at - 40), at + 60));
  throw new Error(
    `differs at byte ${at} (${got.length} instead of ${wanted.length} bytes): ${around(got)} instead of ${around(wanted)}`,
  );
}

/** Makes a fifo; the descriptor for reading and writing keeps it alive, and what no job has read stays in it for the next. */
function fifo(bed: Bed, name: string): { path: string; fd: number } {
  const path = bed.path(name);
  const made = spawnSync('mkfifo', ['-m', '666', path]);
  if (made.status !== 0) throw new Error('mkfifo');
  return { path, fd: openSync(path, constants.O_RDWR | constants.O_NONBLOCK) };
}

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    test('a regular file as stdin keeps its offset', async () => {
      await withBed(identity, async (bed) => {
        const choices = new Choices(`${identity}/stdin-file`);
        const count = 2000;
        const file = bed.write('input', numbers(0, count));
        const command = [PYTHON, fixture('stdin_count.py'), '3', '50'];
        let output = '';
        for (let generation = 0; generation <= 3; generation += 1) {
          const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], command, {
            stdin: { file },
          });
          await job.ready(generation === 0 ? 'scratch' : 'restored');
          if (generation < 3) {
            await job.progresses(20);
            await sleep(choices.between(0, 200));
            await job.freeze();
          } else {
            expect(await job.ends()).toMatchObject({ code: 0 });
          }
          expect(job.stderr).not.toMatch(/VIOLATION/);
          output += job.stdout;
        }
        expectSameText(output, seen(count));
      });
    }, 120_000);

    test('a pipe as stdin: unread bytes, and bytes that we hold, come first after a restore; so does its end', async () => {
      await withBed(identity, async (bed) => {
        const choices = new Choices(`${identity}/stdin-pipe`);
        const input = fifo(bed, 'input');
        const command = [PYTHON, fixture('stdin_count.py'), '1', '1000'];
        let written = 0;
        let output = '';
        const feed = async (count: number): Promise<void> => {
          const text = Buffer.from(numbers(written, written + count));
          written += count;
          for (let at = 0; at < text.length;) {
            try {
              at += writeSync(input.fd, text, at, Math.min(4096, text.length - at));
            } catch (error) {
              if (errorCode(error) !== 'EAGAIN') throw error;
              await sleep(10);
            }
          }
        };
        for (let generation = 0; generation <= 3; generation += 1) {
          const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], command, {
            stdin: { file: input.path },
          });
          await job.ready(generation === 0 ? 'scratch' : 'restored');
          // More than the application reads meanwhile, less or more than a pipe holds.
          await feed([300, 5000, 20000, 10][generation] ?? 0);
          if (generation === 3) closeSync(input.fd);
          else {
            await job.progresses(10);
            await sleep(choices.between(0, 200));
            await job.freeze();
            output += job.stdout;
            continue;
          }
          expect(await job.ends(120_000)).toMatchObject({ code: 0 });
          expect(job.stderr).not.toMatch(/VIOLATION/);
          output += job.stdout;
        }
        expectSameText(output, seen(written));
      });
    }, 240_000);

    it('the end of stdin before the freeze is the end of stdin after it', async () => {
      await withBed(identity, async (bed) => {
        const command = [PYTHON, fixture('stdin_count.py'), '5', '20'];
        const options = ['--image-url', `file:${bed.path('image')}`];
        const first = bed.run(await bed.place(), options, command, { stdin: 'pipe' });
        first.stdin.end(numbers(0, 300));
        await first.ready('scratch');
        await first.progresses(20);
        await first.freeze();
        const second = bed.run(await bed.place(), options, command);
        await second.ready('restored');
        expect(await second.ends()).toMatchObject({ code: 0 });
        expectSameText(first.stdout + second.stdout, seen(300));
      });
    }, 120_000);

    it('an application that does not read its stdin keeps what is in it', async () => {
      await withBed(identity, async (bed) => {
        const go = bed.path('go');
        const command = ['sh', '-c', `echo up; while [ ! -e ${go} ]; do sleep 0.05; done; cat`];
        const options = ['--image-url', `file:${bed.path('image')}`];
        const first = bed.run(await bed.place(), options, command, { stdin: 'pipe' });
        await first.prints(/up/);
        first.stdin.write('first\n');
        await sleep(200);
        await first.freeze();
        const second = bed.run(await bed.place(), options, command, { stdin: 'pipe' });
        await second.ready('restored');
        second.stdin.end('second\n');
        await sleep(100);
        writeFileSync(go, '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        expect(first.stdout + second.stdout).toBe('up\nfirst\nsecond\n');
      });
    }, 120_000);

    it('a flood on stdout and stderr, into a slow pipe: every byte once', async () => {
      await withBed(identity, async (bed) => {
        const choices = new Choices(`${identity}/flood`);
        const count = FULL ? 600_000 : 250_000;
        const command = [PYTHON, fixture('flood.py'), String(count), '5000'];
        const out = fifo(bed, 'output');
        const chunks: Buffer[] = [];
        const buffer = Buffer.alloc(6_000);
        let drained = true;
        const drain = (): void => {
          try {
            const length = readSync(out.fd, buffer);
            drained = length === 0;
            chunks.push(Buffer.from(buffer.subarray(0, length)));
          } catch {
            drained = true;
          }
        };
        const reader = setInterval(drain, 4);
        try {
          let errors = '';
          for (let generation = 0; generation <= 3; generation += 1) {
            const stdoutFd = openSync(out.path, constants.O_WRONLY);
            const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], command, { stdoutFd });
            closeSync(stdoutFd);
            await job.ready(generation === 0 ? 'scratch' : 'restored');
            if (generation < 3) {
              await sleep(choices.between(50, 250));
              await job.freeze();
            } else {
              expect(await job.ends(200_000)).toMatchObject({ code: 0 });
            }
            errors += job.stderr;
          }
          await sleep(100);
          await until('the pipe to be empty', () => drained);
          expectSameText(Buffer.concat(chunks).toString(), flood(count));
          const wanted = Array.from({ length: count / 5000 }, (_, i) => `stderr ${i * 5000}`);
          expect(errors.match(/^stderr \d+$/gm)).toEqual(wanted);
        } finally {
          clearInterval(reader);
          closeSync(out.fd);
        }
      });
    }, 300_000);

    it('a reader that goes away ends the application by SIGPIPE', async () => {
      await withBed(identity, async (bed) => {
        const out = fifo(bed, 'output');
        const stdoutFd = openSync(out.path, constants.O_WRONLY);
        const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], ['yes'], { stdoutFd });
        closeSync(stdoutFd);
        await job.ready();
        await sleep(100);
        closeSync(out.fd);
        expect(await job.ends(20_000)).toMatchObject({ code: 141 });
      });
    }, 60_000);

    test('--output and --error are exact even after everything was killed', async () => {
      await withBed(identity, async (bed) => {
        const count = 4000;
        const [output, error] = [bed.path('work', 'out.txt'), bed.path('work', 'err.txt')];
        const command = [PYTHON, fixture('flood.py'), String(count), '500', '40'];
        const options = ['--image-url', `file:${bed.path('image')}`, '--output', output, '--error', error];
        const choices = new Choices(`${identity}/output`);
        for (let crash = 0; crash < 2; crash += 1) {
          const job = bed.run(await bed.place(), options, command);
          await job.ready(crash === 0 ? 'scratch' : 'restored');
          await sleep(choices.between(100, 300));
          await job.commits(['--leave-running']);
          await sleep(choices.between(50, 300));
          for (const { pid } of bed.survivors()) signalPid(pid, 'SIGKILL');
          await job.ends();
          expect(job.stdout).toBe('');
        }
        const last = bed.run(await bed.place(), options, command);
        await last.ready('restored');
        expect(await last.ends()).toMatchObject({ code: 0 });
        expectSameText(readFileSync(output, 'utf8'), flood(count));
        expectSameText(
          readFileSync(error, 'utf8'),
          Array.from({ length: count / 500 }, (_, i) => `stderr ${i * 500}\n`).join(''),
        );
        // The two places that crashed could not tidy up.
        bed.leavesState = true;
      });
    }, 120_000);
  });
}
