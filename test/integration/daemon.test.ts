// SPDX-License-Identifier: Apache-2.0
// `fastfreeze daemon`, also known as ff_daemon: jobs started and frozen by requests.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { blocks } from '../support/document.js';
import { ask, type AskOptions, type Reply, type Where } from '../support/http.js';
import { generations } from '../support/image.js';
import type { Job, JobOptions } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import { PATH_OF_JOBS, type Place } from '../support/place.js';
import { freePort } from '../support/ports.js';
import { inspect, signalPid } from '../support/processes.js';
import { ffDaemon, fixture } from '../support/stage.js';
import { until } from '../support/until.js';

const loop = (bed: Bed): string[] => ['sh', fixture('shell-loop.sh'), bed.path('stop')];
const json = { Accept: 'application/json' };

interface Status {
  readonly state: string;
  readonly pid: number;
  readonly job: { readonly name: string; readonly launcherPid: number; readonly state: string } | null;
  readonly lastRun: { readonly exitCode: number; readonly reason: string | null } | null;
}

interface Daemon {
  readonly job: Job;
  ask(method: string, path: string, options?: AskOptions): Promise<Reply>;
  status(): Promise<Status>;
}

/** Starts one and waits until it listens. */
async function daemon(bed: Bed, place: Place, options: readonly string[] = [], more: JobOptions = {}): Promise<Daemon> {
  const job = bed.start(place, [...(more.program === undefined ? ['daemon'] : []), ...options], more);
  const [, path, port] = await job.says(/Listening on (?:(\/.*)|http:\/\/\S+:(\d+))\n/);
  const where: Where = path === undefined ? { port: Number(port) } : { socketPath: path };
  const at = async (method: string, url: string, o: AskOptions = {}): Promise<Reply> =>
    await ask(where, method, url, o);
  return { job, ask: at, status: async () => JSON.parse((await at('GET', '/status')).text) as Status };
}

const url = (bed: Bed): string => `file:${bed.path('image')}`;
const started = { status: 200, text: 'App start successfully\n' };

describe('on a socket', () => {
  test('a job is started, shown, frozen and continued by requests', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const digit = (): string => readFileSync(bed.path('work', 'status'), 'utf8');
      const key = bed.write('key', 'hunter2-passphrase\n');
      const at = await daemon(bed, place, ['--status-file', 'status', '--verbose'], { program: ffDaemon() });
      expect(statSync(join(place.stateDir, 'daemon.sock')).mode & 0o777).toBe(0o600);
      expect([digit(), await at.status()]).toMatchObject(['0', { state: 'standby', job: null, lastRun: null }]);

      const first = {
        app_args: [
          'sh',
          '-c',
          'echo "$GREETING" >"$0"; exec sh "$@"',
          bed.path('work', 'greeting'),
          ...loop(bed).slice(1),
        ],
        image_url: url(bed),
        passphrase_file: key,
        on_app_ready: `touch ${bed.path('work', 'ready')}`,
        envs: ['GREETING=hunter2=b'],
        verbose: 1,
      };
      expect(await at.ask('POST', '/run', { body: first })).toMatchObject(started);
      // Not before: what it answers is so.
      expect(at.job.stderr).toContain('Application is ready, started from scratch');
      expect(digit()).toBe('1');
      expect((await place.fastfreeze(['status', 'image'])).stdout).toMatch(/^image: running since/);
      await at.job.progresses(3);
      expect(await at.status()).toMatchObject({ state: 'running', job: { name: 'image', state: 'running' } });
      expect(readFileSync(bed.path('work', 'greeting'), 'utf8')).toBe('hunter2=b\n');
      await until('the hook', () => existsSync(bed.path('work', 'ready')));
      const second = await at.ask('POST', '/run', { body: { ...first, image_url: `${url(bed)}2` } });
      expect([second.status, second.text]).toEqual([409, expect.stringContaining('job image runs')]);

      // One that fails costs the job nothing.
      const refused = await at.ask('POST', '/checkpoint', { body: { image_url: 'file:/proc/none' } });
      expect([refused.status, refused.text]).toEqual([
        500,
        expect.stringMatching(/^Error: .*\/proc\/none.*\nTry: .*\n$/),
      ]);
      await at.job.progresses(2);
      const running = await at.ask('POST', '/checkpoint', {
        body: { leave_running: true, num_shards: 1, preserved_paths: bed.path('work', 'greeting') },
        headers: json,
      });
      expect([running.status, JSON.parse(running.text)]).toMatchObject([
        200,
        // The other one is the directory of its temporary files.
        { generation: 1, leftRunning: true, encrypted: true, files: { entries: 2 } },
      ]);
      expect(digit()).toBe('1');
      await at.job.progresses(2);
      expect(await at.ask('POST', '/checkpoint')).toMatchObject({ status: 200, text: 'App checkpointed\n' });
      expect([digit(), await at.status()]).toMatchObject(['2', { state: 'checkpointed', job: null }]);

      const wrongKey = await at.ask('POST', '/run', { body: { app_args: '', image_url: url(bed) }, headers: json });
      expect([wrongKey.status, JSON.parse(wrongKey.text)]).toMatchObject([
        500,
        { exitCode: 171, error: { code: 'key' } },
      ]);
      expect(digit()).toBe('0');
      const again = { app_args: '', image_url: url(bed), passphrase_file: key };
      const restored = await at.ask('POST', '/run', { body: again, headers: json });
      expect([restored.status, JSON.parse(restored.text)]).toMatchObject([
        200,
        { name: 'image', restoredGeneration: 2 },
      ]);
      await at.job.progresses(2);
      bed.write('stop', '');
      await until('the end', async () => (await at.status()).state === 'standby');
      expect(await at.status()).toMatchObject({ lastRun: { exitCode: 0, error: null } });
      expect(digit()).toBe('0');
      checkLines(at.job.stdout);

      at.job.signal('SIGTERM');
      expect(await at.job.ends()).toMatchObject({ code: 0 });
      expect(existsSync(join(place.stateDir, 'daemon.sock'))).toBe(false);
      expect(at.job.stderr).toMatch(/POST "\/run": 200\n/);
      expect(at.job.stderr).not.toMatch(/hunter2|\n {4}at /);
    });
  }, 90_000);

  test('as a normal user too; FF_PASSPHRASE of the daemon is its jobs’', async () => {
    await withBed('user', async (bed) => {
      const at = await daemon(bed, await bed.place(), [], { env: { FF_PASSPHRASE: 'hunter2' } });
      const body = { app_args: loop(bed), image_url: url(bed) };
      expect(await at.ask('POST', '/run', { body })).toMatchObject(started);
      await at.job.progresses(2);
      const frozen = await at.ask('POST', '/checkpoint', { headers: json });
      expect(JSON.parse(frozen.text)).toMatchObject({ generation: 1, leftRunning: false, encrypted: true });
      const restored = await at.ask('POST', '/run', { body, headers: json });
      expect(JSON.parse(restored.text)).toMatchObject({ restoredGeneration: 1 });
      await at.job.progresses(2);
      at.job.signal('SIGTERM');
      expect(await at.job.ends()).toMatchObject({ code: 143 });
      checkLines(at.job.stdout, { complete: false });
    });
  }, 60_000);
});

describe('on a port', () => {
  test('every request but /healthz must bring the token; the job sees none of it, and has its caller’s limits', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const bare = await place.fastfreeze(['daemon', '--port', '0']);
      expect([bare.code, bare.stderr]).toEqual([
        2,
        expect.stringMatching(/^Error: cannot use --port 0: .*token\nTry: .*--token-file/),
      ]);
      const token = 'not-a-secret-0123456789';
      const short = await place.fastfreeze(['daemon', '-p', '0'], { env: { FF_DAEMON_TOKEN: 'hunter2' } });
      expect([short.code, short.stderr]).toEqual([2, expect.stringMatching(/FF_DAEMON_TOKEN: .*16 to 4096/)]);
      expect(short.stderr).not.toContain('hunter2');

      const file = bed.write('token', `${token}\n`);
      const at = await daemon(bed, place, ['--port', '0', '--host', '127.0.0.1', '--token-file', file, '-v']);
      const headers = { Authorization: `Bearer ${token}` };
      expect(await at.ask('GET', '/healthz')).toMatchObject({ status: 200, text: 'ok\n' });
      for (const [method, path] of [
        ['GET', '/status'],
        ['POST', '/run'],
      ] as const) {
        expect(await at.ask(method, path)).toMatchObject({ status: 401 });
        expect(
          await at.ask(method, path, { headers: { Authorization: 'Bearer not-a-secret-0123456780' } }),
        ).toMatchObject({
          status: 401,
        });
      }
      expect(await at.ask('GET', '/status', { headers })).toMatchObject({ status: 200 });
      for (const [method, path, status, body] of [
        ['GET', '/run', 405, ''],
        ['POST', '/stop', 404, ''],
        ['POST', '/checkpoint', 409, ''],
        ['POST', '/run', 400, '{"app_args":"true","image_url":"file:/x","no_restore":"yes"}'],
        ['POST', '/run', 413, ' '.repeat(70_000)],
      ] as const) {
        expect([path, (await at.ask(method, path, { headers, body })).status]).toEqual([path, status]);
      }
      const none = { app_args: '/no/such "pro gram"', image_url: url(bed) };
      expect(await at.ask('POST', '/run', { body: none, headers })).toMatchObject({
        status: 500,
        text: 'App Exited with exit_code 170\n',
      });
      const detailed = await at.ask('POST', '/run', { body: none, headers: { ...headers, ...json } });
      expect(JSON.parse(detailed.text)).toMatchObject({ exitCode: 170, error: { code: 'app', subject: '/no/such' } });
      at.job.signal('SIGINT');
      expect(await at.job.ends()).toMatchObject({ code: 0 });
      expect(at.job.stderr).not.toContain(token);

      const limited = await daemon(bed, place, ['-p', '0'], {
        env: { FF_DAEMON_TOKEN: token },
        within: ['sh', '-c', 'ulimit -Sn 321; exec "$@"', 'sh'],
      });
      const body = { app_args: `sh -c 'env; ulimit -Sn; exit 3'`, image_url: url(bed) };
      expect(await limited.ask('POST', '/run', { body, headers })).toMatchObject(started);
      await limited.job.prints(/^321$/m);
      limited.job.signal('SIGTERM');
      // Whether the job had ended or not when it came.
      expect([0, 3, 143]).toContain((await limited.job.ends()).code);
      expect(limited.job.stdout).toContain('FASTFREEZE=1');
      expect(limited.job.stdout).not.toMatch(/not-a-secret|FF_DAEMON/);
    });
  }, 60_000);
});

describe('what it begins with', () => {
  test('--exec starts a job, --decider says whether and how, --exit-with-run makes its exit code the daemon’s', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const exec = bed.write('run.json', JSON.stringify({ app_args: loop(bed), image_url: url(bed) }));
      const first = await daemon(bed, place, ['--exec', exec, '--exit-with-run']);
      await first.job.progresses(3);
      expect(await first.ask('POST', '/checkpoint')).toMatchObject({ status: 200, text: 'App checkpointed\n' });
      expect(await first.job.ends()).toMatchObject({ code: 137 });

      const decider = bed.write('decider', '1 go on');
      const second = await daemon(bed, place, ['-e', exec, '-d', decider, '-k']);
      await second.job.ready('restored');
      await second.job.progresses(2);
      second.job.signal('SIGTERM');
      expect(await second.job.ends()).toMatchObject({ code: 143 });

      bed.write('decider', '0');
      const third = await daemon(bed, place, ['--exec', exec, '--decider', decider, '-k']);
      await third.job.ready('scratch');
      bed.write('stop', '');
      expect(await third.job.ends()).toMatchObject({ code: 0 });

      bed.write('decider', '2');
      for (const file of [decider, bed.path('no-such-file')]) {
        const idle = await daemon(bed, place, ['-e', exec, '-d', file, '-k']);
        expect(await idle.status()).toMatchObject({ state: 'standby' });
        idle.job.signal('SIGTERM');
        expect(await idle.job.ends()).toMatchObject({ code: 0 });
        expect(idle.job.stderr).not.toContain('ff.run');
      }
      const fails = bed.write('fails.json', JSON.stringify({ app_args: '/no/such', image_url: `${url(bed)}2` }));
      const failing = bed.start(place, ['daemon', '-e', fails, '-k']);
      expect(await failing.ends()).toMatchObject({ code: 170 });

      const wrong = bed.write('wrong.json', '{"app_args":"x"}');
      bed.write('decider', 'x');
      for (const [options, reason] of [
        [['-e', wrong], /--exec \S+wrong\.json: .*image_url: it is missing/],
        [['-e', bed.path('none')], /--exec \S+none: it does not exist/],
        [['-e', exec, '-d', decider], /--decider \S+: its first character is "x"/],
        [['-d', decider], /nothing to decide about without --exec/],
        [['word'], /it takes no words/],
      ] as const) {
        const refused = await place.fastfreeze(['daemon', ...options]);
        expect([refused.code, refused.stderr]).toEqual([2, expect.stringMatching(reason)]);
      }
    });
  }, 60_000);
});

describe('its end', () => {
  test('a signal goes to the job, once, and the daemon ends after it; one that is ignored by its caller ends nothing', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const at = await daemon(bed, place, [], { within: ['sh', '-c', 'trap "" HUP; exec "$@"', 'sh'] });
      // Ends only when it has been told twice, and freezes in between.
      const script = `trap 'echo TERM' TERM; trap 'exit 9' USR1; echo up; until [ -e "$0" ]; do sleep 0.05; done`;
      const body = { app_args: ['sh', '-c', script, bed.path('stop')], image_url: url(bed) };
      expect(await at.ask('POST', '/run', { body })).toMatchObject(started);
      await at.job.prints(/up/);
      at.job.signal('SIGHUP');
      at.job.signal('SIGTERM');
      await at.job.prints(/TERM/);
      const late = await at.ask('POST', '/run', { body });
      expect([late.status, late.text]).toEqual([409, expect.stringContaining('the daemon is ending')]);
      expect(await at.status()).toMatchObject({ state: 'running', ending: true });
      const kept = await at.ask('POST', '/checkpoint', { body: { leave_running: true } });
      expect(kept.status).toBe(200);
      at.job.signal('SIGUSR1');
      expect(await at.job.ends()).toMatchObject({ code: 9 });
      expect(at.job.stdout).toBe('up\nTERM\n');
      expect(at.job.stderr.match(/SIG\w+: .*/g)).toEqual(['SIGTERM: passed on to the job; the daemon ends after it']);
    });
  }, 60_000);

  test('a live daemon keeps its socket, a killed one leaves its job running and its socket to the next', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const socket = bed.path('work', 'd.sock');
      const first = await daemon(bed, place, ['--socket', socket]);
      const twice = await place.fastfreeze(['daemon', '--socket', socket]);
      expect([twice.code, twice.stderr]).toEqual([
        170,
        expect.stringMatching(/d\.sock: another daemon listens there\nTry: /),
      ]);
      const body = { app_args: loop(bed), image_url: url(bed) };
      expect(await first.ask('POST', '/run', { body })).toMatchObject(started);
      signalPid((await first.status()).pid, 'SIGKILL');
      expect(await first.job.ends()).toMatchObject({ code: 137 });
      expect(existsSync(socket)).toBe(true);
      const second = await daemon(bed, place, ['--socket', socket]);
      // It is nobody's now, and is not started twice.
      expect(await second.ask('POST', '/run', { body })).toMatchObject({ status: 500 });
      expect(second.job.stderr).toContain('a job of this name is running');
      expect(await place.fastfreeze(['checkpoint', 'image'])).toMatchObject({ code: 0 });
      await until('its end', async () => (await place.fastfreeze(['status'])).stdout === 'No job is running.\n');

      // A client that hangs up has asked all the same.
      expect(await second.ask('POST', '/run', { body })).toMatchObject(started);
      const { launcherPid = 0 } = (await second.status()).job ?? {};
      const asked = request({ socketPath: socket, method: 'POST', path: '/checkpoint' }).end();
      asked.on('error', () => undefined);
      await second.job.says(/Checkpointing job image\n/);
      asked.destroy();
      await until('the end of the job', () => inspect(launcherPid) === undefined);
      await until('the daemon to know', async () => (await second.status()).state === 'checkpointed');
      expect(generations(bed.path('image'))).toEqual([1, 2]);
      second.job.signal('SIGTERM');
      expect(await second.job.ends()).toMatchObject({ code: 0 });
    });
  }, 60_000);
});

if (spawnSync('sh', ['-c', 'command -v curl && command -v openssl']).status === 0) {
  test('docs/ff-daemon.md: the sessions go as they are shown', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const port = await freePort();
      const [session = [], token = []] = blocks('docs/ff-daemon.md').filter((lines) =>
        lines.some((line) => line.startsWith('$ ')),
      );
      bed.write('work/count.sh', 'i=0; while :; do echo "step $((i = i + 1))"; sleep 0.1; done\n');
      const type = async (lines: readonly string[]): Promise<string> => {
        const script = lines
          .filter((line) => line.startsWith('$ '))
          .map((line) => line.slice(2).replaceAll('/run/fastfreeze/0', place.stateDir))
          .map((line) => line.replaceAll('/srv/images', bed.path()).replaceAll('7878', String(port)))
          // It says when it can be asked.
          .map((line) =>
            line.replace(/^(ff_daemon [^&]*)&?$/, '$1 >>said 2>&1 &\nuntil grep -q Listening said; do sleep 0.1; done'),
          );
        const env = { PATH: `${dirname(ffDaemon()[0] ?? '')}:${PATH_OF_JOBS}` };
        const answer = await place.exec(['sh', '-euc', [': >said', ...script, 'kill $!', 'wait $! || :'].join('\n')], {
          env,
        });
        expect(answer).toMatchObject({ code: 0 });
        return answer.stdout;
      };
      const shown = session.filter((line) => line.startsWith('App '));
      expect(shown).toHaveLength(3);
      expect(await type(session)).toBe(`${shown.join('\n')}\n`);
      expect(readFileSync(bed.path('work', 'said'), 'utf8')).toMatch(/Restoring application from generation 1/);
      expect(JSON.parse(await type(token))).toMatchObject({ state: 'standby' });
    });
  }, 60_000);
} else test.skip('docs/ff-daemon.md: the sessions go as they are shown', () => undefined);

test('run --notify-fd tells on a descriptor when the application runs and how it has ended', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const file = bed.write('notices', '');
    const notices = (): unknown[] =>
      readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as unknown);
    const within = ['sh', '-c', 'exec "$@" 3>>"$0"', file];
    const job = bed.run(place, ['--image-url', url(bed), '--notify-fd', '3'], loop(bed), { within });
    await job.progresses(1);
    expect(notices()).toEqual([{ event: 'ready', pid: job.pid, restoredGeneration: null }]);
    await job.freeze();
    expect(notices()[1]).toEqual({ event: 'ended', exitCode: 137, reason: 'checkpointed' });
    const failing = bed.run(place, ['--image-url', url(bed), '--notify-fd', '3', '--generation', '7'], [], { within });
    expect(await failing.ends()).toMatchObject({ code: 171 });
    expect(notices()[2]).toMatchObject({ event: 'ended', exitCode: 171, error: { code: 'not-found' } });
    const wrong = await place.fastfreeze(['run', '--notify-fd', '99', '--', 'true']);
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringMatching(/--notify-fd "99": expected .*open pipe/)]);
  });
}, 30_000);
