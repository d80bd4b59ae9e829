// SPDX-License-Identifier: Apache-2.0
// What a job tells of itself to programs: a metrics recorder, a file for Prometheus, a log in JSON.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { blocksIn } from '../support/document.js';
import { inTurn } from '../support/in-turn.js';
import { fixture } from '../support/stage.js';
import { until } from '../support/until.js';

const loop = (bed: Bed): string[] => ['sh', fixture('shell-loop.sh'), bed.path('stop')];
const url = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];

interface Event {
  readonly action: string;
  readonly outcome?: string;
  readonly invocation_id: string;
  readonly [field: string]: unknown;
}

/** A recorder that appends its one argument to a file; `more` is what else it does. */
function recorder(bed: Bed, name: string, more = ''): { program: string; events: () => Event[] } {
  const file = bed.write(`${name}.events`, '');
  const program = bed.write(name, `#!/bin/sh\n[ $# = 1 ] && printf '%s\\n' "$1" >>'${file}'\n${more}\n`);
  chmodSync(program, 0o755);
  const events = (): Event[] =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Event);
  return { program, events };
}

const actions = (events: readonly Event[]): string[] => events.map(({ action }) => action);

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    it('a recorder gets every event of run, checkpoint, restore and checkpoint, in order', async () => {
      await withBed(identity, async (bed) => {
        const { program, events } = recorder(bed, 'record');
        const env = { FF_METRICS_RECORDER: program };
        const numbers = bed.path('work', 'job.prom');
        const first = bed.run(await bed.place(), [...url(bed), '--metrics-file', numbers], loop(bed), { env });
        await first.progresses(2);
        expect(readFileSync(numbers, 'utf8')).toMatch(/^fastfreeze_job_running\{name="image"\} 1$/m);
        // Its own recorder has nothing to do: that of run tells of it.
        const other = recorder(bed, 'other');
        await first.freeze([], { env: { FF_METRICS_RECORDER: other.program } });
        expect(other.events()).toEqual([]);
        expect(readFileSync(numbers, 'utf8')).toMatch(
          /^fastfreeze_job_running\{name="image"\} 0$[^]*^fastfreeze_checkpoints_total\{name="image",outcome="success"\} 1$[^]*# EOF\n$/m,
        );
        const second = bed.run(await bed.place(), url(bed), loop(bed), { env });
        await second.ready('restored');
        await second.progresses(2);
        await second.freeze();
        const told = events();
        expect(actions(told)).toEqual([
          ...['fetch_manifest', 'run_from_scratch', 'checkpoint_start', 'checkpoint', 'run'],
          ...['fetch_manifest', 'restore', 'checkpoint_start', 'checkpoint', 'run'],
        ]);
        for (const event of told) {
          expect(event.outcome).toBe(event.action === 'checkpoint_start' ? undefined : 'success');
          expect(event['cli_args']).toEqual(expect.arrayContaining(['fastfreeze', 'run', '--', 'sh']));
        }
        expect(new Set(told.map((event) => event.invocation_id)).size).toBe(2);
        expect(told[0]).toMatchObject({ manifest: 'not_found', run_mode: 'run_from_scratch' });
        expect(told[2]).toMatchObject({ image_url: `file:${bed.path('image')}` });
        expect(told[4]).toMatchObject({ exit_code: 137 });
        expect(told[5]).toMatchObject({ manifest: 'good', run_mode: 'restore' });
        for (const event of [told[3], told[6]]) {
          const stats = event?.['stats'] as { total_size_mb: number; shards: { size_mb: number }[] };
          expect(stats.total_size_mb).toBeGreaterThan(0.1);
          expect(stats.shards.length).toBeGreaterThan(0);
          for (const shard of stats.shards) expect(shard.size_mb).toBeGreaterThan(0);
        }
        expect(told[6]?.['duration_since_checkpoint_sec']).toBeGreaterThanOrEqual(0);
      });
    }, 90_000);

    it('a recorder that fails or hangs costs the job nothing but its last words', async () => {
      await withBed(identity, async (bed) => {
        const failing = recorder(bed, 'failing', 'echo no route >&2; exit 7');
        const first = bed.run(await bed.place(), url(bed), loop(bed), {
          env: { FF_METRICS_RECORDER: failing.program },
        });
        await first.progresses(2);
        await first.freeze();
        expect(first.stderr).toMatch(/Warning: the metrics recorder \S+ ended with exit code 7: no route/);
        expect(actions(failing.events())).toContain('checkpoint');

        const hanging = recorder(bed, 'hanging', 'exec sleep 600');
        const second = bed.run(await bed.place(), url(bed), loop(bed), {
          env: { FF_METRICS_RECORDER: hanging.program },
        });
        await second.ready('restored');
        await second.progresses(2);
        await second.freeze();
        expect(actions(hanging.events())[0]).toBe('fetch_manifest');
        expect(second.stderr).toMatch(/has not recorded \d+ events: it takes too long/);
      });
    }, 90_000);
  });
}

if (spawnSync('sh', ['-c', 'command -v curl']).status === 0) {
  test('docs/metrics.md: the recorder that is shown sends every event', async () => {
    await withBed('user', async (bed) => {
      const got: Event[] = [];
      const server = createServer((incoming, answer) => {
        void text(incoming).then((body) => {
          got.push(JSON.parse(body) as Event);
          answer.end();
        });
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      const [script = ''] = blocksIn('docs/metrics.md', 'sh');
      const program = bed.write('send', script.replace('https://metrics.example', `http://127.0.0.1:${port}`));
      chmodSync(program, 0o755);
      const job = bed.run(await bed.place(), url(bed), ['true'], { env: { FF_METRICS_RECORDER: program } });
      expect(await job.ends()).toMatchObject({ code: 0 });
      expect(job.stderr).not.toMatch(/Warning/);
      server.close();
      expect(actions(got)).toEqual(['fetch_manifest', 'run_from_scratch', 'run']);
    });
  }, 60_000);
} else test.skip('docs/metrics.md: the recorder that is shown sends every event', () => undefined);

test('where run has no recorder, that of checkpoint tells of it, its failure too', async () => {
  await withBed('root', async (bed) => {
    const { program, events } = recorder(bed, 'record');
    const env = { FF_METRICS_RECORDER: program };
    const place = await bed.place();
    const job = bed.run(place, url(bed), loop(bed));
    await job.progresses(2);
    const words = ['checkpoint', '-i', 'file:/proc/none', '--leave-running'];
    const failed = await place.fastfreeze(words, { env });
    expect(failed.code).toBe(170);
    await job.progresses(2);
    await job.freeze([], { env });
    expect(events()).toMatchObject([
      { action: 'checkpoint_start', image_url: 'file:/proc/none' },
      { action: 'checkpoint', outcome: 'error', error: expect.stringContaining('/proc/none') as unknown },
      { action: 'checkpoint_start', image_url: `file:${bed.path('image')}` },
      { action: 'checkpoint', outcome: 'success', generation: 1 },
    ]);
    expect(events()[0]?.['cli_args']).toEqual(expect.arrayContaining(['fastfreeze', 'checkpoint']));
  });
}, 60_000);

test('how a run failed is told: the application’s exit code, an image that is damaged, a command that is none', async () => {
  await withBed('root', async (bed) => {
    const { program, events } = recorder(bed, 'record');
    const env = { FF_METRICS_RECORDER: program };
    const failing = bed.run(await bed.place(), url(bed), ['sh', '-c', 'exit 3'], { env });
    expect(await failing.ends()).toMatchObject({ code: 3 });
    expect(events().at(-1)).toMatchObject({ action: 'run', outcome: 'error', exit_code: 3 });
    const again = bed.run(await bed.place(), url(bed), ['/no/such/program'], { env });
    expect(await again.ends()).toMatchObject({ code: 170 });
    expect(events().slice(-3)).toMatchObject([
      { action: 'fetch_manifest', manifest: 'finished', run_mode: 'run_from_scratch' },
      { action: 'run_from_scratch', outcome: 'error', error: expect.stringContaining('/no/such/program') as unknown },
      { action: 'run', outcome: 'error', exit_code: 170 },
    ]);
    for (const name of bed.list('image').filter((one) => one.startsWith('manifest')))
      writeFileSync(bed.path('image', name), '{"format":');
    const damaged = bed.run(await bed.place(), url(bed), ['true'], { env });
    expect(await damaged.ends()).toMatchObject({ code: 171 });
    expect(events().slice(-2)).toMatchObject([
      { action: 'fetch_manifest', outcome: 'error' },
      { action: 'run', outcome: 'error', exit_code: 171 },
    ]);
  });
}, 60_000);

test('--log-format json: every line of ours is an object, errors with their remedy, and the application’s are its own', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const command = ['sh', '-c', 'echo plain >&2; until [ -e "$0" ]; do sleep 0.05; done', bed.path('stop')];
    const job = bed.run(place, [...url(bed), '--log-format', 'json', '-vv'], command);
    await job.says(/"message":"Application is ready/);
    const refused = await place.fastfreeze(['checkpoint', '--image-url', 'file:/proc/none']);
    expect(refused.code).toBe(170);
    bed.write('stop', '');
    expect(await job.ends()).toMatchObject({ code: 0 });
    const lines = job.stderr.split('\n').filter((line) => line !== '');
    expect(lines.filter((line) => line === 'plain')).toHaveLength(1);
    const records = lines.filter((line) => line !== 'plain').map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(new Set(records.map(({ level }) => level))).toEqual(new Set(['info', 'debug', 'trace']));
    for (const record of records) {
      expect(Object.keys(record)).toEqual(['time', 'level', 'command', 'elapsedMs', 'message']);
      expect(Math.abs(Date.parse(String(record['time'])) - Date.now())).toBeLessThan(60_000);
      expect(record).toMatchObject({ command: 'run', elapsedMs: expect.any(Number) as unknown });
    }
    const wrong = bed.run(place, [...url(bed), '--log-format', 'json', '--generation', '9'], ['true']);
    expect(await wrong.ends()).toMatchObject({ code: 171 });
    const last = JSON.parse(wrong.stderr.trim().split('\n').at(-1) ?? '') as Record<string, unknown>;
    expect(last).toMatchObject({ level: 'error', message: expect.stringContaining('9') as unknown });
    expect(last['hint']).toEqual(expect.any(String));
    const unknown = await place.fastfreeze(['run', '--log-format', 'xml', '--', 'true']);
    expect(unknown.code).toBe(2);
    expect(unknown.stderr).toMatch(/--log-format "xml".*text or json/);
  });
}, 60_000);

test('a run that is refused because the job runs leaves the metrics file to it', async () => {
  await withBed('root', async (bed) => {
    const [place, numbers] = [await bed.place(), bed.path('work', 'job.prom')];
    const options = [...url(bed), '--metrics-file', numbers];
    const job = bed.run(place, options, loop(bed));
    await job.progresses(2);
    await job.commits(['--leave-running']);
    await until('the checkpoint', () => /checkpoint_generation\{name="image"\} 1/.test(readFileSync(numbers, 'utf8')));
    const before = readFileSync(numbers, 'utf8');
    const second = bed.run(place, options, loop(bed));
    expect(await second.ends()).toMatchObject({ code: 170 });
    expect(readFileSync(numbers, 'utf8')).toBe(before);
    expect(bed.list('work')).toEqual(['job.prom']);
    bed.write('stop', '');
    expect(await job.ends()).toMatchObject({ code: 0 });
  });
}, 30_000);

test('a recorder that cannot be started at all costs a warning, for run and for checkpoint', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const env = { FF_METRICS_RECORDER: `${bed.write('plain', '')}/` };
    const job = bed.run(place, url(bed), loop(bed), { env });
    await job.progresses(2);
    await job.freeze();
    expect(job.stderr).toMatch(/Warning: the metrics recorder \S+ could not be started: .*ENOTDIR/);
    const next = bed.run(place, url(bed), loop(bed));
    await next.ready('restored');
    const answer = await next.freeze([], { env });
    expect(answer.stderr).toMatch(/^Warning: the metrics recorder \S+ could not be started/m);
  });
}, 60_000);

test('--metrics-file that cannot be written is refused before anything starts', async () => {
  await withBed('root', async (bed) => {
    const job = bed.run(
      await bed.place(),
      [...url(bed), '--metrics-file', bed.path('none', 'x')],
      ['touch', bed.path('ran')],
    );
    expect(await job.ends()).toMatchObject({ code: 2 });
    expect(job.stderr).toMatch(/cannot write the metrics file .*\nTry: .*directory that exists/);
    expect(existsSync(bed.path('ran'))).toBe(false);
  });
}, 30_000);
