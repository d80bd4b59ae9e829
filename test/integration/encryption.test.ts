// SPDX-License-Identifier: Apache-2.0
// Jobs whose images are encrypted: they continue with the passphrase, and do not start without it.
import { chmodSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { generations, imageHashes } from '../support/image.js';
import { inTurn } from '../support/in-turn.js';
import { checkLines } from '../support/lines.js';
import { descendantsOf } from '../support/processes.js';
import { PYTHON, fixture } from '../support/stage.js';

const PASSPHRASE = 'four words nobody guesses';

const loop = (bed: Bed): string[] => ['sh', fixture('shell-loop.sh'), bed.path('stop')];
const url = (bed: Bed): string => `file:${bed.path('image')}`;
const passphraseFile = (bed: Bed, name = 'passphrase', text = `${PASSPHRASE}\n`): string => bed.write(name, text);

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    test('a job continues over generations with --passphrase-file and FF_PASSPHRASE, and nowhere shows it', async () => {
      await withBed(identity, async (bed) => {
        const file = passphraseFile(bed);
        let output = '';
        // The application looks for it in its environment, and says how often it found it.
        const looks = ['sh', '-c', 'env | grep -c -e PASSPHRASE -e "words nobody"; exec "$@"', 'sh', ...loop(bed)];
        const told = bed.write('told', '');
        const recorder = bed.write('recorder', `#!/bin/sh\n{ printf '%s\\n' "$1"; env; } >>${told}\n`);
        chmodSync(recorder, 0o755);
        const env = { FF_PASSPHRASE: PASSPHRASE, FF_METRICS_RECORDER: recorder };
        const first = bed.run(await bed.place(), ['--image-url', url(bed), '--cpu-budget', 'low', '-vv'], looks, {
          env,
        });
        await first.ready('scratch');
        await first.progresses(2);
        await first.freeze();
        expect(first.stdout.split('\n')[0]).toBe('0');
        output += first.stdout.slice(2);

        const second = bed.run(
          await bed.place(),
          ['--image-url', url(bed), '--cpu-budget', 'low', '--passphrase-file', file, '-vv'],
          looks,
          { env: { FF_METRICS_RECORDER: recorder } },
        );
        await second.ready('restored');
        await second.progresses(2);
        for (const pid of descendantsOf(second.pid)) {
          expect(readIfThere(`/proc/${pid}/cmdline`)).not.toContain(PASSPHRASE);
          expect(readIfThere(`/proc/${pid}/environ`)).not.toContain(PASSPHRASE);
        }
        // The key is the job's: no checkpoint has to be given it again.
        await second.freeze();
        output += second.stdout;
        expect(generations(bed.path('image'))).toEqual([1, 2]);
        for (const name of readdirSync(bed.path('image'))) {
          const bytes = readFileSync(join(bed.path('image'), name));
          expect(bytes.includes('shell-loop')).toBe(name.startsWith('manifest'));
        }

        const third = bed.run(await bed.place(), ['--image-url', url(bed), '--passphrase-file', file], []);
        await third.ready('restored');
        writeFileSync(bed.path('stop'), '');
        expect(await third.ends()).toMatchObject({ code: 0 });
        checkLines(output + third.stdout);
        for (const job of [first, second, third]) expect(job.stderr).not.toContain(PASSPHRASE);
        expect(readFileSync(told, 'utf8')).toMatch(/"action":"checkpoint"[^]*"action":"restore"/);
        expect(readFileSync(told, 'utf8')).not.toContain(PASSPHRASE);

        // Finished: the next starts anew, and says that it would do so without encryption.
        const fourth = bed.run(await bed.place(), ['--image-url', url(bed)], ['true']);
        expect(await fourth.ends()).toMatchObject({ code: 0 });
        expect(fourth.stderr).toMatch(/earlier images of this job are encrypted; those that follow will not be/);
      });
    }, 120_000);

    it('without the passphrase, with another, or with one for an image that is not encrypted, nothing starts', async () => {
      await withBed(identity, async (bed) => {
        const file = passphraseFile(bed);
        const first = bed.run(await bed.place(), ['--image-url', url(bed), '--passphrase-file', file], loop(bed));
        await first.ready('scratch');
        await first.progresses(2);
        await first.freeze();
        const before = imageHashes(bed.path('image'));
        const refusals: readonly (readonly [readonly string[], RegExp])[] = [
          [[], /it is encrypted, and no passphrase is given\nTry: .*--passphrase-file/],
          [
            ['--passphrase-file', passphraseFile(bed, 'other', 'another one\n')],
            /the passphrase is not the one that it was encrypted with/,
          ],
        ];
        for (const [options, message] of refusals) {
          const job = bed.run(await bed.place(), ['--image-url', url(bed), ...options], loop(bed));
          expect(await job.ends()).toMatchObject({ code: 171 });
          expect(job.stderr).toMatch(message);
          expect(job.stdout).toBe('');
        }
        const plainUrl = `file:${bed.path('plain')}`;
        const plain = bed.run(await bed.place(), ['--image-url', plainUrl], loop(bed));
        await plain.ready('scratch');
        await plain.freeze();
        // The commands that look at images are not deceived either.
        const place = await bed.place();
        for (const words of [
          ['verify'],
          ['inspect'],
          ['cp', `file:${bed.path('copy')}`],
          ['extract', '-o', bed.path('out')],
        ]) {
          const [command = '', ...rest] = words;
          const answer = await place.fastfreeze([command, '--passphrase-file', file, plainUrl, ...rest]);
          expect([command, answer.code]).toEqual([command, command === 'verify' || command === 'cp' ? 171 : 170]);
          expect(answer.stdout + answer.stderr).toMatch(/the image is not encrypted: somebody may have exchanged it/);
        }
        const exchanged = bed.run(await bed.place(), ['--image-url', plainUrl, '--passphrase-file', file], loop(bed));
        expect(await exchanged.ends()).toMatchObject({ code: 171 });
        expect(exchanged.stderr).toMatch(/the image is not encrypted: somebody may have exchanged it/);
        expect(imageHashes(bed.path('image'))).toEqual(before);
      });
    }, 120_000);
  });
}

test('a passphrase file that cannot be one is refused before anything starts', async () => {
  await withBed('user', async (bed) => {
    const place = await bed.place();
    const wrong: readonly (readonly [string, RegExp])[] = [
      [bed.path('missing'), /there is no such file/],
      [bed.write('empty', '\n'), /it is empty/],
      [bed.write('binary', Buffer.from([0xff, 0xfe, 0x00])), /not text in UTF-8/],
      [bed.write('long', 'x'.repeat(5000)), /longer than 4096 bytes/],
    ];
    // A CI secret that is not set.
    const unset = await place.fastfreeze(['run', '--image-url', url(bed), '--', 'true'], {
      env: { FF_PASSPHRASE: '' },
    });
    expect(unset.code).toBe(2);
    expect(unset.stderr).toMatch(/FF_PASSPHRASE: it is empty/);
    for (const [file, message] of wrong) {
      const answer = await place.fastfreeze(['run', '--image-url', url(bed), '--passphrase-file', file, '--', 'true']);
      expect(answer.code).toBe(2);
      expect(answer.stderr).toMatch(message);
      expect(answer.stderr).toMatch(/^Try: /m);
    }
  });
}, 60_000);

test('checkpoint can bring a passphrase, for a job that had none; the commands that look at images need it', async () => {
  await withBed('user', async (bed) => {
    const file = passphraseFile(bed);
    const place = await bed.place();
    const job = bed.run(place, ['--image-url', url(bed)], loop(bed));
    await job.ready('scratch');
    await job.progresses(2);
    expect(await place.fastfreeze(['checkpoint', '--leave-running', '--passphrase-file', file])).toMatchObject({
      code: 0,
    });
    await job.progresses(2);
    // It keeps it.
    expect(await place.fastfreeze(['checkpoint'])).toMatchObject({ code: 0 });
    expect((await job.ends()).code).toBe(137);

    const shown = await place.fastfreeze(['inspect', '--passphrase-file', file, url(bed)]);
    expect(shown.stdout).toContain('encrypted (aes-256-gcm)');

    const copy = `file:${bed.path('copy')}`;
    const commands = [
      ['verify', '--all', url(bed)],
      ['inspect', '--json', url(bed)],
      ['cp', '--all', url(bed), copy],
      ['extract', url(bed), '-o', bed.path('extracted')],
    ];
    for (const [command = '', ...rest] of commands) {
      const refused = await place.fastfreeze([command, ...rest]);
      expect(refused.code).toBe(170);
      expect(refused.stderr).toMatch(/it is encrypted, and no passphrase is given/);
      const answer = await place.fastfreeze([command, '--passphrase-file', file, ...rest]);
      expect([command, answer.code, answer.stderr]).toEqual([command, 0, expect.anything()]);
      if (command === 'inspect') expect(JSON.parse(answer.stdout)).toMatchObject({ image: { cipher: 'aes-256-gcm' } });
    }
    expect(readdirSync(bed.path('extracted'))).toContain('inventory.img');

    const again = bed.run(await bed.place(), ['--image-url', copy, '--passphrase-file', file], []);
    await again.ready('restored');
    writeFileSync(bed.path('stop'), '');
    expect(await again.ends()).toMatchObject({ code: 0 });
    checkLines(job.stdout + again.stdout);
  });
}, 120_000);

test('a checkpoint may change the passphrase, which is then the one that counts; an image that was changed starts nothing', async () => {
  await withBed('user', async (bed) => {
    const [before, after] = [passphraseFile(bed), passphraseFile(bed, 'after', 'another one\n')];
    const options = ['--image-url', url(bed), '--num-shards', '2'];
    // Enough for both.
    const command = [PYTHON, fixture('memory.py'), bed.path('stop'), '8'];
    const first = bed.run(await bed.place(), [...options, '--passphrase-file', before], command);
    await first.progresses(2);
    await first.freeze(['--passphrase-file', after]);
    const refusedWith = async (file: string): Promise<string> => {
      const job = bed.run(await bed.place(), [...options, '--passphrase-file', file], command);
      expect([await job.ends(), job.stdout]).toMatchObject([{ code: 171 }, '']);
      return job.stderr;
    };
    expect(await refusedWith(before)).toMatch(/the passphrase is not the one that it was encrypted with/);

    const objects = readdirSync(bed.path('image')).filter((name) => name.endsWith('.ffs'));
    const [large = '', small = ''] = objects
      .map((name) => bed.path('image', name))
      .sort((a, b) => statSync(b).size - statSync(a).size);
    expect(small).not.toBe('');
    const [whole, other] = [readFileSync(large), readFileSync(small)];
    const damaged = Buffer.from(whole);
    const middle = damaged.length >> 1;
    damaged[middle] = (damaged[middle] ?? 0) ^ 1;
    writeFileSync(large, damaged);
    expect(await refusedWith(after)).toMatch(/Error: /);
    // What belongs to it, in another place.
    writeFileSync(large, other);
    writeFileSync(small, whole);
    expect(await refusedWith(after)).toMatch(/Error: /);
    writeFileSync(large, whole);
    writeFileSync(small, other);

    const again = bed.run(await bed.place(), [...options, '--passphrase-file', after], command);
    await again.ready('restored');
    writeFileSync(bed.path('stop'), '');
    expect(await again.ends()).toMatchObject({ code: 0 });
    checkLines(first.stdout + again.stdout);
  });
}, 60_000);

/** Of a process that may have gone: then nothing. */
function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    // Not `instanceof`: errors of Node itself are not of the test's own realm.
    if (/ENOENT|ESRCH/u.test(String(error))) return '';
    throw error;
  }
}
