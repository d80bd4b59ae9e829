// SPDX-License-Identifier: Apache-2.0
// The commands that manage images, on images of a real job: they tell the truth about it, and what they copy and keep restores.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type Bed, USER_ID, withBed } from '../support/bed.js';
import { generations, imageHashes } from '../support/image.js';
import { inTurn } from '../support/in-turn.js';
import type { Answer, Place } from '../support/place.js';
import { fixture, PYTHON } from '../support/stage.js';

interface Size {
  readonly mappedBytes: number;
  readonly savedBytes: number;
}

interface Process {
  readonly pid: number;
  readonly parentPid: number;
  readonly threads: number;
  readonly name: string;
  readonly executable: string;
  readonly commandLine: readonly string[];
  readonly memory: Record<'private' | 'shared' | 'filePrivate' | 'fileShared' | 'other', Size>;
  readonly files: readonly { readonly kind: string; readonly path?: string }[];
}

interface Inspected {
  readonly app: { readonly command: string[]; readonly appending: readonly { readonly path: string }[] };
  readonly image: { readonly rawBytes: number; readonly pageBytes: number; readonly compressionRatio: number };
  readonly writer: { readonly host: string };
  readonly processes: readonly Process[];
  readonly sharedSavedBytes: number;
  readonly notes: readonly string[];
}

const json = (answer: Answer): unknown => {
  expect([answer.code, answer.stderr]).toEqual([0, '']);
  return JSON.parse(answer.stdout) as unknown;
};

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    test('a job is inspected, verified, listed, copied and pruned, and what is left continues', async () => {
      await withBed(identity, async (bed) => {
        const images = bed.directory('images');
        const url = `file:${join(images, 'team', 'job')}`;
        const log = bed.path('work', 'log');
        const stop = bed.path('stop');
        const command = [PYTHON, fixture('inspected.py'), stop, log];
        const place = await bed.place();
        const job = bed.run(place, ['-i', url], command);
        await job.ready();
        await job.prints(/holding/);
        await job.commits(['--leave-running']);
        await job.commits(['--leave-running']);
        await job.freeze();
        const before = imageHashes(images);

        await inspects(place, url, command, log, /tcp (\d+) udp (\d+)/.exec(job.stdout) ?? []);
        const listed = json(await place.fastfreeze(['list', '--json', `file:${images}`]));
        const numbers = [1, 2, 3].slice(-2);
        expect(listed).toMatchObject({
          jobs: [{ url, state: 'checkpoint', generations: numbers.map((generation) => ({ generation })) }],
        });
        const text = await place.fastfreeze(['list', `file:${images}`]);
        expect(text.stdout).toMatch(/^file:.*\/team\/job {2}checkpoint, \d.*iB\n( +\d+ {2}checkpoint .*\n){2}1 job, /);
        expect(json(await place.fastfreeze(['verify', '--all', '--json', url]))).toMatchObject({
          ok: true,
          generations: numbers.map((generation) => ({ generation, state: 'checkpoint', damage: [] })),
        });
        expect(await place.fastfreeze(['verify', url])).toMatchObject({
          code: 0,
          stdout: expect.stringMatching(/^Generation 3: ok, \d+ chunks, .* stored, .* raw\n$/) as unknown,
        });
        expect(imageHashes(images)).toEqual(before);

        // Copied whole, the copy is the original; copied again, nothing happens.
        const copies = bed.directory('copies');
        const copy = `file:${join(copies, 'job')}`;
        expect(json(await place.fastfreeze(['cp', '--json', '--all', url, copy]))).toMatchObject({
          generations: numbers.map((generation) => ({ generation, outcome: 'copied' })),
        });
        expect(Object.values(imageHashes(copies)).sort()).toEqual(Object.values(before).sort());
        expect(await place.fastfreeze(['cp', url, copy])).toMatchObject({
          code: 0,
          stdout: expect.stringContaining('Generation 3 is already at') as unknown,
        });

        const copied = imageHashes(copies);
        const dry = await place.fastfreeze(['prune', '--keep', '1', '--dry-run', `file:${copies}`]);
        expect(dry).toMatchObject({ code: 0, stdout: expect.stringMatching(/would remove generations 2:/) as unknown });
        const old = await place.fastfreeze(['prune', '--keep', '1', '--older-than', '1h', `file:${copies}`]);
        expect(old).toMatchObject({ code: 0, stdout: 'Nothing had to go.\n' });
        expect(imageHashes(copies)).toEqual(copied);
        expect(json(await place.fastfreeze(['prune', '--keep', '1', '--json', `file:${copies}`]))).toMatchObject({
          dryRun: false,
          jobs: [{ url: copy, generations: [2] }],
        });
        expect(generations(join(copies, 'job'))).toEqual([3]);
        expect(await place.fastfreeze(['verify', copy])).toMatchObject({ code: 0 });

        // The proof: the pruned copy continues, on another machine.
        const again = bed.run(await bed.place(), ['-i', copy], command);
        await again.ready('restored');
        await again.prints(/beat/);
        writeFileSync(stop, '');
        expect((await again.ends()).code).toBe(0);
        const finished = await place.fastfreeze(['inspect', copy]);
        expect(finished.stdout).toMatch(/^generation +4, finished$[^]*^ended +with exit code 0$/m);
        expect(await place.fastfreeze(['verify', copy])).toMatchObject({ code: 0 });
        expect(imageHashes(images)).toEqual(before);
      });
    }, 180_000);

    it('what is damaged, missing or not ours is told, with its exit code', async () => {
      await withBed(identity, async (bed) => {
        const images = bed.directory('images');
        const directory = join(images, 'job');
        const url = `file:${directory}`;
        const place = await bed.place();
        const stop = bed.path('stop');
        const job = bed.run(place, ['-i', url], [PYTHON, fixture('inspected.py'), stop, bed.path('work', 'log')]);
        await job.ready();
        await job.prints(/holding/);
        await job.freeze();
        const elsewhere = `file:${bed.directory('copies')}/job`;

        await fails(place, 170, `file:${bed.path('nowhere')}`, elsewhere, /does not exist|there is none/);
        await fails(place, 2, 'ftp://host/job', elsewhere, /ftp: is not a kind of store/);

        await withDamage(bed, shardOf(directory), async (at) => {
          const verified = await place.fastfreeze(['verify', '--json', url]);
          expect(verified.code).toBe(171);
          const { ok, generations: found } = JSON.parse(verified.stdout) as {
            ok: boolean;
            generations: { damage: { object: string; offset: number }[] }[];
          };
          expect([ok, found[0]?.damage.length]).toEqual([false, 1]);
          expect(shardOf(directory).endsWith(`/${found[0]?.damage[0]?.object ?? ''}`)).toBe(true);
          expect(found[0]?.damage[0]?.offset).toBeLessThanOrEqual(at);
          const text = await place.fastfreeze(['verify', url]);
          expect(text.stdout).toMatch(/^Generation 1: damaged\n {2}\S+\.ffs at offset \d+: its .*\n$/);
          const copied = await place.fastfreeze(['cp', url, elsewhere]);
          expect([copied.code, copied.stdout]).toEqual([171, '']);
          expect(copied.stderr).toMatch(/^Error: cannot copy .*\.ffs: at offset \d+ it is damaged: .*\nTry: /);
          expect(readdirSync(bed.path('copies', 'job'))).toEqual([]);
        });

        const manifest = join(directory, 'manifest-00000001.json');
        const good = readFileSync(manifest, 'utf8');
        const forged = good.replace(/"name": "[^"]*-1\.ffs"/, '"name": "../../x-1.ffs"');
        const body = forged.slice(0, forged.lastIndexOf(',\n  "checksum"'));
        const checksum = createHash('sha256').update(body).digest('hex');
        for (const [content, reason] of [
          [good.replace('"checkpoint"', '"checkpaint"'), /its checksum does not match/],
          [good.slice(0, 100), /cut short or damaged/],
          ['{"schemaVersion": 2, "layers": []}\n', /another tool wrote it/],
          [`${body},\n  "checksum": "${checksum}"\n}\n`, /its field image\.shards must/],
        ] as const) {
          writeFileSync(manifest, content);
          const verified = await place.fastfreeze(['verify', url]);
          expect(verified).toMatchObject({ code: 171, stdout: expect.stringMatching(reason) as unknown });
          expect(await place.fastfreeze(['cp', url, elsewhere])).toMatchObject({ code: 171, stdout: '' });
          const inspected = await place.fastfreeze(['inspect', url]);
          expect(inspected).toMatchObject({ code: 170, stdout: '', stderr: expect.stringMatching(reason) as unknown });
          const listed = await place.fastfreeze(['list', url]);
          expect(listed).toMatchObject({ code: 0, stdout: expect.stringMatching(/ damaged, /) as unknown });
          const pruned = await place.fastfreeze(['prune', '--keep', '1', url]);
          expect(pruned).toMatchObject({ code: 170, stderr: expect.stringMatching(reason) as unknown });
        }
        writeFileSync(manifest, good);

        // A destination that holds another job's generation 1 is left alone.
        const other = bed.run(place, ['-i', elsewhere], ['sh', '-c', 'echo up; sleep 1000']);
        await other.ready();
        await other.freeze();
        const before = imageHashes(bed.path('copies'));
        const copied = await place.fastfreeze(['cp', url, elsewhere]);
        expect(copied).toMatchObject({ code: 170, stderr: expect.stringContaining('another generation 1') as unknown });
        expect(imageHashes(bed.path('copies'))).toEqual(before);

        if (identity === 'user') {
          // What this user may not look into is said, and the rest is shown.
          mkdirSync(bed.path('images', 'secret'), { mode: 0o700 });
          const listed = await place.fastfreeze(['list', `file:${images}`]);
          expect(listed).toMatchObject({ code: 0, stdout: expect.stringContaining(url) as unknown });
          expect(listed.stderr).toMatch(/^Not shown: .*\/secret: permission denied/);
          // Nor does a job hide the others whose lease is not this user's to read.
          const locked = bed.path('images', 'locked');
          cpSync(directory, locked, { recursive: true });
          execFileSync('chown', ['-R', `${USER_ID}:${USER_ID}`, locked]);
          const lease = join(locked, 'lease.json');
          writeFileSync(lease, '{}', { mode: 0o600 });
          execFileSync('chown', ['0:0', lease]);
          const rest = await place.fastfreeze(['list', '--json', `file:${images}`]);
          const { jobs, unread } = JSON.parse(rest.stdout) as { jobs: { url: string }[]; unread: { url: string }[] };
          expect([rest.code, jobs.map((one) => one.url)]).toEqual([0, [url]]);
          expect(unread.map((one) => one.url)).toEqual([`file:${images}/locked`, `file:${images}/secret`]);
          // Where all of them fail, it is not the jobs.
          const alone = await place.fastfreeze(['list', `file:${images}/locked`]);
          expect(alone).toMatchObject({ code: 170, stderr: expect.stringContaining('permission denied') as unknown });
        }
      });
    }, 180_000);
  });
}

async function inspects(
  place: Place,
  url: string,
  command: readonly string[],
  log: string,
  [, tcp = '', udp = '']: readonly string[],
): Promise<void> {
  const found = json(await place.fastfreeze(['inspect', '--json', url])) as Inspected;
  expect(found).toMatchObject({ generation: 3, state: 'checkpoint', notes: [], app: { command } });
  expect(found.writer.host).toBe(place.hostname);
  expect(found.app.appending.map(({ path }) => path)).toContain(log);
  expect(found.image.compressionRatio).toBeGreaterThan(1);
  const [parent, child] = found.processes;
  expect(found.processes.length).toBe(2);
  expect(parent).toMatchObject({ pid: 1000, parentPid: 0, threads: 2, name: 'python3', state: 'alive' });
  expect(child).toMatchObject({ parentPid: 1000, threads: 1, name: 'python3' });
  for (const { commandLine } of found.processes) expect(commandLine).toEqual(command);
  expect(found).toMatchObject({ cpu: null, registers: expect.arrayContaining(['sse']) as unknown, holder: null });
  expect(parent?.executable).toMatch(/^\/usr\/bin\/python3/);
  expect(parent?.memory.private.savedBytes).toBeGreaterThan(6 << 20);
  expect(parent?.memory.shared.mappedBytes).toBeGreaterThanOrEqual(3 << 20);
  expect(parent?.memory.filePrivate.mappedBytes).toBeGreaterThan(1 << 20);
  expect(found.sharedSavedBytes).toBeGreaterThanOrEqual(3 << 20);
  // Every page of the image is one that some process, or all of them together, are said to have.
  const saved = found.processes
    .flatMap(({ memory }) => Object.values(memory))
    .reduce((sum, one) => sum + one.savedBytes, 0);
  expect(saved + found.sharedSavedBytes).toBe(found.image.pageBytes);
  for (const process of found.processes) {
    expect(process.files).toContainEqual(expect.objectContaining({ kind: 'file', path: log, append: true }));
    expect(process.files).toContainEqual(
      expect.objectContaining({ kind: 'tcp', local: `127.0.0.1:${tcp}`, state: 'listen' }),
    );
    expect(process.files).toContainEqual(expect.objectContaining({ kind: 'udp', local: `127.0.0.1:${udp}` }));
  }
  const { code, stdout, stderr } = await place.fastfreeze(['inspect', url]);
  expect([code, stderr]).toEqual([0, '']);
  for (const line of [/^generation +3, checkpoint$/m, /^ +1000 {2}python3 .* 2 threads/m, /^ +\d+ {4}python3 /m]) {
    expect(stdout).toMatch(line);
  }
  for (const word of [log, `127.0.0.1:${tcp} listen`, `127.0.0.1:${udp}`, 'appends to']) expect(stdout).toContain(word);
}

/** Every command that reads a URL, on one that cannot be read. */
async function fails(place: Place, code: number, url: string, other: string, reason: RegExp): Promise<void> {
  for (const words of [
    ['verify', url],
    ['inspect', url],
    ['list', url],
    ['prune', '--keep', '1', url],
    ['cp', url, other],
  ]) {
    const answer = await place.fastfreeze(words);
    expect([words[0], answer.code, answer.stdout]).toEqual([words[0], code, '']);
    expect(answer.stderr).toMatch(/^Error: .*\nTry: .*\n$/);
    expect(answer.stderr).toMatch(reason);
  }
  expect(existsSync(other.slice('file:'.length))).toBe(false);
}

/** The largest shard of an image. */
function shardOf(directory: string): string {
  const shards = readdirSync(directory).filter((name) => name.endsWith('.ffs'));
  const bySize = shards.map((name) => join(directory, name)).sort((a, b) => statSync(b).size - statSync(a).size);
  return bySize[0] ?? '';
}

/** Flips a byte in the middle of a file while `body` runs. */
async function withDamage(bed: Bed, path: string, body: (at: number) => Promise<void>): Promise<void> {
  const good = readFileSync(path);
  const bad = Buffer.from(good);
  const at = bad.length >> 1;
  bad[at] = (bad[at] ?? 0) ^ 1;
  writeFileSync(path, bad);
  try {
    await body(at);
  } finally {
    writeFileSync(path, good);
    bed.give(path);
  }
}
