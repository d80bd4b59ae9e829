// SPDX-License-Identifier: Apache-2.0
// On a terminal: the application has one of its own, Ctrl-C reaches it, and ours is put back on every way out.
import { constants } from 'node:os';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed, type Identity } from '../support/bed.js';
import { GcsFake } from '../support/gcs-fake.js';
import { inTurn } from '../support/in-turn.js';
import type { Place } from '../support/place.js';
import { signalPid } from '../support/processes.js';
import { fastfreeze, fixture, PYTHON } from '../support/stage.js';
import { Terminal, type TerminalEnd } from '../support/terminal.js';
import { sleep, until } from '../support/until.js';

const run = (bed: Bed, mode: string, ...options: string[]): string[] => [
  'run',
  '--image-url',
  `file:${bed.path('image')}`,
  ...options,
  '--',
  PYTHON,
  fixture('terminal.py'),
  mode,
];

/** A shell with job control that has the terminal, as a user's. */
async function interactiveShell(bed: Bed, place: Place): Promise<Terminal> {
  const shell = new Terminal(bed, place, ['--norc', '--noprofile', '-i'], 24, 200, { PS1: 'prompt> ' }, ['bash']);
  await shell.shows(/prompt> /);
  return shell;
}

function expectPutBack(end: TerminalEnd): void {
  expect(end.after).toEqual(end.before);
}

for (const identity of ['root', 'user'] as const satisfies readonly Identity[]) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    test('keys, Ctrl-C and window sizes reach the application; its exit code comes back and the terminal is put back', async () => {
      await withBed(identity, async (bed) => {
        const terminal = new Terminal(bed, await bed.place(), run(bed, 'raw'), 33, 111);
        await terminal.shows(/ready 33 111/);
        terminal.type('a');
        await terminal.shows(/key 61/);
        terminal.type('\x03');
        await terminal.shows(/got INT/);
        terminal.resize(44, 122);
        await terminal.shows(/size 44 122/);
        terminal.type('q');
        const end = await terminal.ends();
        expect(end.code).toBe(3);
        expectPutBack(end);
        expect(terminal.screen).not.toMatch(/VIOLATION/);
      });
    }, 90_000);

    for (const mode of ['raw', 'cooked']) {
      it(`frozen on one terminal, thawed on others of another size (${mode})`, async () => {
        await withBed(identity, async (bed) => {
          const end = mode === 'cooked' ? 'q\n' : 'q';
          for (let generation = 0; generation <= 3; generation += 1) {
            const place = await bed.place({ clockOffsetS: generation * 100 });
            const terminal = new Terminal(bed, place, run(bed, mode), 30 + generation, 100 + generation);
            await terminal.shows(generation === 0 ? /ready 30 100/ : /restore took/);
            terminal.type(mode === 'cooked' ? 'b\n' : 'b');
            await terminal.shows(/key 62/);
            terminal.type('\x03');
            await terminal.shows(/got INT/);
            // It learns of the new terminal's size, as it would of a change of the old one's.
            if (generation > 0) await terminal.shows(new RegExp(`size ${30 + generation} ${100 + generation}`));
            if (generation < 3) {
              expect(await place.fastfreeze(['checkpoint'])).toMatchObject({ code: 0 });
              const stopped = await terminal.ends();
              expect(stopped.code).toBe(137);
              expectPutBack(stopped);
            } else {
              terminal.type(end);
              const last = await terminal.ends();
              expect(last.code).toBe(3);
              expectPutBack(last);
            }
            expect(terminal.screen).not.toMatch(/VIOLATION|Traceback/);
          }
        });
      }, 120_000);
    }

    it('with --checkpoint-on SIGINT, Ctrl-C freezes and ends; a second one does no harm', async () => {
      await withBed(identity, async (bed) => {
        const first = new Terminal(bed, await bed.place(), run(bed, 'cooked', '--checkpoint-on', 'SIGINT'));
        await first.shows(/ready/);
        first.type('\x03');
        await sleep(60);
        first.type('\x03');
        const stopped = await first.ends();
        expect(stopped.code).toBe(137);
        expectPutBack(stopped);
        expect(first.screen).not.toMatch(/got INT/);
        const second = new Terminal(bed, await bed.place(), run(bed, 'cooked'));
        await second.shows(/restore took/);
        second.type('q\n');
        expect(await second.ends()).toMatchObject({ code: 3 });
      });
    }, 90_000);

    it('during a restore Ctrl-C ends the run; what else is typed, and a new size, are for the application', async () => {
      await withBed(identity, async (bed) => {
        const fake = await GcsFake.start();
        try {
          fake.makeBucket('jobs');
          const command = (name: string, ...words: string[]): string[] => [
            'run',
            '--image-url',
            `gs://jobs/${name}`,
            '--',
            PYTHON,
            ...words,
          ];
          const freeze = async (words: readonly string[], pattern: RegExp): Promise<void> => {
            const place = await bed.place();
            const terminal = new Terminal(bed, place, words, 30, 100, fake.env);
            await terminal.shows(pattern);
            expect(await place.fastfreeze(['checkpoint'])).toMatchObject({ code: 0 });
            expect((await terminal.ends()).code).toBe(137);
          };
          const restoring = async ([run = '', ...words]: string[], ...options: string[]): Promise<Terminal> => {
            const place = await bed.place();
            const env = { ...fake.env, FF_STORE_RATE_LIMIT: '1M' };
            const terminal = new Terminal(bed, place, [run, ...options, ...words], 30, 100, env);
            await until(
              'the restore',
              async () => /: restoring/.test((await place.fastfreeze(['status'])).stdout),
              20_000,
              () => terminal.screen,
            );
            return terminal;
          };

          // At that rate its restore takes half a minute.
          const large = command('large', fixture('memory.py'), bed.path('stop'), '60');
          await freeze(large, /holding 60 MB/);
          for (const options of [[], ['--checkpoint-on', 'SIGINT']]) {
            const ended = await restoring(large, ...options);
            ended.type('x\x1a\x1c\x03');
            const end = await ended.ends(20_000);
            expect(end.code).toBe(170);
            expectPutBack(end);
            expect(ended.screen).toMatch(/SIGINT came first/);
          }

          const small = command('small', fixture('terminal.py'), 'raw');
          await freeze(small, /^ready /m);
          const second = await restoring(small);
          second.resize(44, 122);
          second.type('a');
          await second.shows(/size 44 122/);
          await second.shows(/key 61/);
          second.type('\x03');
          await second.shows(/got INT/);
          second.type('q');
          const last = await second.ends();
          expect(last.code).toBe(3);
          expectPutBack(last);
          expect(second.screen).not.toMatch(/VIOLATION|Traceback/);
        } finally {
          await fake.stop();
        }
      });
    }, 120_000);

    it('the terminal is put back when the application dies, fails to start, or we are told to end', async () => {
      await withBed(identity, async (bed) => {
        const image = ['run', '--image-url', `file:${bed.path('image')}`, '--no-restore', '--'];
        const dies = new Terminal(bed, await bed.place(), [...image, 'sh', '-c', 'stty raw -echo; kill -SEGV $$']);
        const died = await dies.ends();
        expect(died.code).toBe(139);
        expectPutBack(died);
        const absent = new Terminal(bed, await bed.place(), [...image, '/nonexistent']);
        const failed = await absent.ends();
        expect(failed.code).toBe(170);
        expectPutBack(failed);
        const told = new Terminal(bed, await bed.place(), [
          ...image,
          'sh',
          '-c',
          'stty raw -echo; echo up; exec sleep 100',
        ]);
        await told.shows(/up/);
        signalPid(await told.pid(), 'SIGTERM');
        const ended = await told.ends();
        expect(ended.code).toBe(143);
        expectPutBack(ended);
      });
    }, 90_000);

    it('a terminal that goes away hangs the application up', async () => {
      await withBed(identity, async (bed) => {
        const terminal = new Terminal(bed, await bed.place(), [
          'run',
          '--image-url',
          `file:${bed.path('image')}`,
          '--',
          'sh',
          '-c',
          'echo up; exec sleep 1000',
        ]);
        await terminal.shows(/up/);
        terminal.hangUp();
        const end = await terminal.ends(30_000);
        expect(end.code).toBe(128 + constants.signals.SIGHUP);
      });
    }, 90_000);

    it('an application that survives the loss of its terminal goes on, and is frozen and continued on another', async () => {
      await withBed(identity, async (bed) => {
        const path = bed.write('counter', '0000000000');
        const lines = (): number => Number(readFileSync(path, 'utf8'));
        const command = [...run(bed, '').slice(0, 4), PYTHON, fixture('survivor.py'), path];
        const place = await bed.place();
        const first = new Terminal(bed, place, command);
        await first.shows(/line 20 /);
        first.hangUp();
        // More than all that lies between it and the terminal can hold.
        const atHangUp = lines();
        await until('4 MiB more', () => lines() > atHangUp + 1024);
        expect(await place.fastfreeze(['checkpoint', '--leave-running'])).toMatchObject({ code: 0 });
        const atCheckpoint = lines();
        await until('a line after the checkpoint', () => lines() > atCheckpoint);
        expect(await place.fastfreeze(['checkpoint'])).toMatchObject({ code: 0 });
        expect((await first.ends()).code).toBe(137);

        const stoppedAt = lines();
        const second = new Terminal(bed, await bed.place(), command);
        await second.shows(new RegExp(`line ${stoppedAt + 20} `));
        second.type('q\n');
        const end = await second.ends();
        expect(end.code).toBe(4);
        expectPutBack(end);
      });
    }, 90_000);

    test('an interactive shell with job control works', async () => {
      await withBed(identity, async (bed) => {
        const terminal = new Terminal(
          bed,
          await bed.place(),
          ['run', '--image-url', `file:${bed.path('image')}`, '--', 'bash', '--norc', '-i'],
          24,
          80,
          { PS1: 'prompt> ' },
        );
        await terminal.shows(/prompt> /);
        terminal.type('sleep 100\n');
        await sleep(400);
        terminal.type('\x1a');
        await terminal.shows(/Stopped/);
        terminal.type('kill %1; tty; exit 5\n');
        await terminal.shows(/\/dev\/(pts\/\d+|console|tty)/);
        const end = await terminal.ends();
        expect(end.code).toBe(5);
        expect(terminal.screen).not.toMatch(/no job control|cannot set terminal process group/);
      });
    }, 90_000);

    for (const began of ['in the background', 'on the terminal']) {
      it(`in the background it leaves what is typed to the shell, and is continued where there is more to read (began ${began})`, async () => {
        await withBed(identity, async (bed) => {
          const isFirst = began === 'in the background';
          const got = bed.write('got', '');
          const reads = bed.write('reads.sh', `echo reads-now; exec cat >${got}`);
          const words = isFirst ? [...run(bed, '').slice(0, 4), 'sh', reads] : run(bed, 'cooked');
          if (!isFirst) {
            const place = await bed.place();
            const terminal = new Terminal(bed, place, words);
            await terminal.shows(/ready/);
            expect(await place.fastfreeze(['checkpoint'])).toMatchObject({ code: 0 });
            expect(await terminal.ends()).toMatchObject({ code: 137 });
          }

          const place = await bed.place();
          const shell = await interactiveShell(bed, place);
          shell.type(`${[...fastfreeze(), ...words].join(' ')} &\n`);
          await shell.shows(isFirst ? /reads-now/ : /restore took/);
          // Each line arrives whole and in order, or one of the numbers does not appear.
          for (let line = 0; line < 20; line += 1) {
            shell.type(`echo typed-$((${line} + 1000))\n`);
            await shell.shows(new RegExp(`typed-${line + 1000}`), 10_000);
          }
          expect(readFileSync(got, 'utf8')).toBe('');
          expect(await place.fastfreeze(['checkpoint'])).toMatchObject({ code: 0 });
          await shell.shows(/was checkpointed/);
          shell.type('exit 7\n');
          expect(await shell.ends()).toMatchObject({ code: 7 });

          const second = new Terminal(bed, await bed.place(), words);
          await second.shows(/restore took/);
          second.type(isFirst ? 'hello\n' : 'b\n');
          if (isFirst) await until('what was typed', () => readFileSync(got, 'utf8') === 'hello\n');
          else await second.shows(/key 62/);
          signalPid(await second.pid(), 'SIGTERM');
          await second.ends();
        });
      }, 120_000);
    }

    for (const redirected of ['>out', '>out 2>err']) {
      it(`with ${redirected} only that goes into files: the rest shows on the terminal, also after a restore`, async () => {
        await withBed(identity, async (bed) => {
          const outPath = bed.write('out', '');
          const errPath = bed.write('err', '');
          const hasErr = redirected.includes('err');
          const script = [
            'echo out 1; echo err 1 >&2; echo prompt 1 >/dev/tty',
            'read key; echo out $key; echo err $key >&2; echo prompt $key >/dev/tty',
            'read key; exit 5',
          ];
          const command = [...run(bed, '').slice(0, 4), 'sh', bed.write('app.sh', script.join('\n'))];
          const redirect = ['sh', '-c', `exec "$@" >${outPath} ${hasErr ? `2>${errPath}` : ''}`, 'sh', ...fastfreeze()];
          const begin = (place: Place): Terminal => new Terminal(bed, place, command, 30, 100, {}, redirect);
          const place = await bed.place();
          const first = begin(place);
          await first.shows(/prompt 1\r\n/);
          await until('the output', () => readFileSync(outPath, 'utf8') === 'out 1\n');
          if (hasErr) await until('the errors', () => /^err 1\n/m.test(readFileSync(errPath, 'utf8')));
          else expect(first.screen).toMatch(/^err 1\r\n/m);
          expect(await place.fastfreeze(['checkpoint'])).toMatchObject({ code: 0 });
          const stopped = await first.ends();
          expect(stopped.code).toBe(137);
          expectPutBack(stopped);
          expect(readFileSync(outPath, 'utf8')).toBe('out 1\n');

          const second = begin(await bed.place());
          second.type('2\n');
          await second.shows(/prompt 2\r\n/);
          expect(second.screen).toMatch(/^2\r\n/m);
          second.type('3\n');
          const end = await second.ends();
          expect(end.code).toBe(5);
          expectPutBack(end);
          expect(readFileSync(outPath, 'utf8')).toBe('out 2\n');
          if (hasErr) expect(readFileSync(errPath, 'utf8')).toMatch(/^err 2\n/m);
          else expect(second.screen).toMatch(/^err 2\r\n/m);
        });
      }, 90_000);
    }

    it('a checkpoint of over a second shows its progress on a terminal', async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        const stopFile = bed.path('stop');
        // zstd on 400 MB, half of it random, takes longer than a second here; a faster machine shows nothing, and that is right.
        const job = bed.run(
          place,
          ['--image-url', `file:${bed.path('image')}`],
          [PYTHON, fixture('memory.py'), stopFile, '400'],
        );
        await job.ready();
        await job.progresses(2);
        const since = Date.now();
        const terminal = new Terminal(bed, place, ['checkpoint', '--cpu-budget', 'high', '--num-shards', '1']);
        expect(await terminal.ends()).toMatchObject({ code: 0 });
        if (Date.now() - since > 2_500) expect(terminal.screen).toMatch(/[\d.]+ ?[MG]i?B.*\/s/);
        expect(await job.ends()).toMatchObject({ code: 137 });
        writeFileSync(stopFile, '');
      });
    }, 90_000);
  });
}
