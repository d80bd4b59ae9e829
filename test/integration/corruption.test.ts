// SPDX-License-Identifier: Apache-2.0
// A damaged image never starts anything: exit 171, the message names the object, nothing is left running, the image stays as it was.
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  cpSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Bed, withBed } from '../support/bed.js';
import { imageHashes } from '../support/image.js';
import { signalPid } from '../support/processes.js';
import { Choices, FULL } from '../support/random.js';
import { fixture, PYTHON } from '../support/stage.js';

const PER_FILE = FULL ? 25 : 2;

/** One good image of a job of a few MB, made once; each test damages a copy. */
let maker: Bed;
let good: string;

beforeAll(async () => {
  maker = new Bed('root');
  good = maker.path('image');
  const job = maker.run(
    await maker.place(),
    ['--image-url', `file:${good}`, '--num-shards', '3'],
    [PYTHON, fixture('memory.py'), maker.path('stop'), '8'],
  );
  await job.ready();
  await job.progresses(2);
  await job.freeze();
}, 60_000);

afterAll(async () => {
  await maker.dispose();
});

async function expectRefused(
  damage: (dir: string) => void,
  names: RegExp,
  options: readonly string[] = [],
): Promise<void> {
  await withBed('root', async (bed) => {
    const image = bed.path('image');
    cpSync(good, image, { recursive: true });
    damage(image);
    const before = imageHashes(image);
    const job = bed.run(
      await bed.place(),
      ['--image-url', `file:${image}`, ...options],
      [PYTHON, fixture('memory.py'), bed.path('stop'), '8'],
    );
    const end = await job.ends();
    expect({ code: end.code, stderr: job.stderr }).toMatchObject({ code: 171 });
    expect(job.stdout).toBe('');
    expect(job.stderr).toMatch(/^Error: .+/m);
    expect(job.stderr).toMatch(/--no-restore/);
    expect(job.stderr).toMatch(names);
    expect(imageHashes(image)).toEqual(before);
  });
}

const literal = (name: string): RegExp => new RegExp(name.replaceAll('.', '\\.'));
const flip = (path: string, at: number, mask: number): void => {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ mask;
  writeFileSync(path, bytes);
};
/** manifest.json is a copy for people, the numbered one counts; the lease is no part of an image. */
const objects = (): string[] => readdirSync(good).filter((name) => !['manifest.json', 'lease.json'].includes(name));
const newestManifest = (): string => objects().find((name) => /^manifest-\d+\.json$/.test(name)) ?? 'no manifest';

/** The manifest as another version of this program would have written it: its checksum is right. */
function setVersion(path: string, version: number): void {
  const text = readFileSync(path, 'utf8').replace(/"formatVersion": \d+/, `"formatVersion": ${version}`);
  const at = text.lastIndexOf(',\n  "checksum"');
  const checksum = createHash('sha256').update(text.slice(0, at)).digest('hex');
  writeFileSync(path, `${text.slice(0, at)},\n  "checksum": "${checksum}"\n}\n`);
}

describe('an image of another format version', () => {
  test('is refused with 171', async () => {
    await expectRefused((dir) => setVersion(join(dir, newestManifest()), 99), /format version 99/);
  }, 60_000);

  test('is tried with --allow-bad-image-version', async () => {
    await withBed('root', async (bed) => {
      const image = bed.path('image');
      cpSync(good, image, { recursive: true });
      setVersion(join(image, newestManifest()), 99);
      const options = ['--image-url', `file:${image}`, '--allow-bad-image-version'];
      const job = bed.run(await bed.place(), options, []);
      await job.ready('restored');
      await job.progresses(2);
      signalPid(job.pid, 'SIGTERM');
      expect(await job.ends()).toMatchObject({ code: 143 });
    });
  }, 60_000);
});

describe('a damaged image is refused with 171', () => {
  test('a flipped byte in any object', async () => {
    const choices = new Choices('flip');
    for (const name of objects()) {
      for (let i = 0; i < PER_FILE; i += 1) {
        const size = statSync(join(good, name)).size;
        if (size === 0) continue;
        const at = i === 0 ? choices.between(0, Math.min(64, size - 1)) : choices.between(0, size - 1);
        await expectRefused((dir) => flip(join(dir, name), at, 1 << choices.between(0, 7)), literal(name)).catch(
          (error: unknown) => {
            throw new Error(`${name}, byte ${at} of ${size}: ${String(error)}`);
          },
        );
      }
    }
  }, 1_200_000);

  test('an object that is missing', async () => {
    for (const name of objects().filter((one) => !one.startsWith('manifest'))) {
      await expectRefused((dir) => rmSync(join(dir, name)), literal(name));
    }
  }, 300_000);

  test('an object that is cut short, empty, or longer than it was', async () => {
    for (const name of objects()) {
      const size = statSync(join(good, name)).size;
      if (size === 0) continue;
      for (const length of [0, Math.floor(size / 2), size - 1])
        await expectRefused((dir) => truncateSync(join(dir, name), length), literal(name));
    }
  }, 600_000);

  test('a manifest that is no JSON, of another kind, or has bytes after its end', async () => {
    const name = newestManifest();
    for (const text of ['', '{', 'null', '[]', '{}', '{"version":"1"}', '\0\0\0']) {
      await expectRefused((dir) => writeFileSync(join(dir, name), text), literal(name));
    }
    await expectRefused((dir) => appendFileSync(join(dir, name), '{}'), literal(name));
  }, 300_000);

  test('two shards exchanged', async () => {
    const shards = objects().filter((name) => name.endsWith('.ffs') && statSync(join(good, name)).size > 0);
    const [a, b] = shards;
    if (a === undefined || b === undefined) throw new Error('fewer than two shards');
    const exchange = (dir: string): void => {
      const bytes = readFileSync(join(dir, a));
      writeFileSync(join(dir, a), readFileSync(join(dir, b)));
      writeFileSync(join(dir, b), bytes);
    };
    await expectRefused(exchange, new RegExp(`${literal(a).source}|${literal(b).source}`));
  }, 60_000);

  test('a restore-only run where there is no image', async () => {
    await withBed('root', async (bed) => {
      const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('nothing')}`], []);
      expect([2, 170, 171]).toContain((await job.ends()).code);
      expect(job.stderr).toMatch(/^Error: .+/m);
    });
  }, 60_000);
});

describe('what is only a copy, and the way out', () => {
  test('a damaged manifest.json costs nothing: the numbered one counts', async () => {
    for (const damage of [
      (path: string) => flip(path, 10, 1),
      (path: string) => truncateSync(path, 5),
      (path: string) => rmSync(path),
    ]) {
      await withBed('root', async (bed) => {
        const image = bed.path('image');
        cpSync(good, image, { recursive: true });
        damage(join(image, 'manifest.json'));
        const job = bed.run(await bed.place(), ['--image-url', `file:${image}`], []);
        await job.ready('restored');
        await job.progresses(2);
        job.signal('SIGTERM');
        expect(await job.ends()).toMatchObject({ code: 143 });
      });
    }
  }, 120_000);

  test('--no-restore starts from scratch beside a damaged image, and its checkpoint restores', async () => {
    await withBed('root', async (bed) => {
      const image = bed.path('image');
      cpSync(good, image, { recursive: true });
      truncateSync(join(image, newestManifest()), 20);
      const stopFile = bed.path('stop');
      const command = ['sh', fixture('shell-loop.sh'), stopFile];
      const job = bed.run(await bed.place(), ['--image-url', `file:${image}`, '--no-restore'], command);
      await job.ready('scratch');
      await job.progresses(2);
      await job.freeze();
      const next = bed.run(await bed.place(), ['--image-url', `file:${image}`], command);
      await next.ready('restored');
      writeFileSync(stopFile, '');
      expect(await next.ends()).toMatchObject({ code: 0 });
    });
  }, 60_000);
});
