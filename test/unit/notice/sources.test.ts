// SPDX-License-Identifier: Apache-2.0
/* Where notices come from, against real servers, files and programs. */
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseDuration } from '../../../src/cli/arguments.js';
import { type Notice, type NoticeSource, pauseMs } from '../../../src/notice/notice.js';
import { azureSource, readEvents } from '../../../src/notice/sources/azure.js';
import { gceMaintenanceSource, gcePreemptedSource } from '../../../src/notice/sources/gce.js';
import { imdsSource } from '../../../src/notice/sources/imds.js';
import {
  commandSource,
  fileSource,
  momentSource,
  readDeadline,
  timeLimitSource,
} from '../../../src/notice/sources/local.js';
import { runCommand } from '../../../src/notice/sources/run-command.js';
import { readJob, slurmSource } from '../../../src/notice/sources/slurm.js';
import { type MetadataServer, startAzure, startGce, startImds } from '../../support/metadata.js';
import { until } from '../../support/until.js';
import { makeDirectory } from '../linux/support.js';

jest.setTimeout(60_000);

const NOW_MS = Date.parse('2026-11-25T12:00:00Z');
const closing: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

interface Heard {
  readonly notices: (Notice | undefined)[];
  readonly problems: string[];
  readonly ended: Promise<void>;
  /** The newest that was reported. */
  last(): Notice | undefined;
}

function listen(source: NoticeSource): Heard {
  const ending = new AbortController();
  const notices: (Notice | undefined)[] = [];
  const problems: string[] = [];
  const ended = source.watch({
    report: (notice) => notices.push(notice),
    problem: (message) => problems.push(message),
    signal: ending.signal,
  });
  closing.push(async () => {
    ending.abort();
    await ended;
  });
  return { notices, problems, ended, last: () => notices.at(-1) };
}

async function started<T extends MetadataServer>(start: () => Promise<T>): Promise<T> {
  const server = await start();
  closing.push(() => server.close());
  return server;
}

describe('EC2', () => {
  const interruption = '{"action": "terminate", "time": "2026-11-25T12:02:00Z"}';
  const source = (url: string): NoticeSource =>
    imdsSource({ env: { AWS_EC2_METADATA_SERVICE_ENDPOINT: url }, pollMs: 20, timeoutMs: 300 });

  test('an interruption is a deadline, a rebalance recommendation a hint that may come before', async () => {
    const imds = await started(startImds);
    const heard = listen(source(imds.url));
    await until('the first look', () => heard.notices.length > 0);
    expect(heard.last()).toBeUndefined();
    imds.rebalance = '{"noticeTime": "2026-11-25T11:59:00Z"}';
    await until('the hint', () => heard.last()?.what === 'hint');
    imds.action = interruption;
    await until('the notice', () => heard.last()?.what === 'stop');
    expect(heard.last()).toMatchObject({
      deadline: { atMs: NOW_MS + 120_000, kind: 'taken-away' },
      detail: expect.stringContaining('terminate') as unknown,
    });
    expect(heard.notices.filter((one) => one?.what === 'hint')).toHaveLength(1);
    expect(heard.problems).toEqual([]);
    // One token for all of it.
    expect(imds.asked.filter((one) => one.startsWith('PUT'))).toHaveLength(1);
  });

  test('a token that has ended is replaced', async () => {
    const imds = await started(startImds);
    const heard = listen(source(imds.url));
    await until('the first look', () => heard.notices.length > 0);
    imds.expireTokens();
    imds.action = interruption;
    await until('the notice', () => heard.last()?.what === 'stop');
    expect(heard.problems).toEqual([]);
    expect(imds.asked.filter((one) => one.startsWith('PUT'))).toHaveLength(2);
  });

  test('a token is renewed before it ends', async () => {
    const imds = await started(startImds);
    let nowMs = NOW_MS;
    const env = { AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url };
    const heard = listen(imdsSource({ env, pollMs: 20, now: () => nowMs }));
    await until('the first look', () => heard.notices.length > 0);
    nowMs += 4 * 3_600_000;
    await until('another token', () => imds.asked.filter((one) => one.startsWith('PUT')).length === 2);
    expect(heard.problems).toEqual([]);
  });

  test('a token that never arrives is the hop limit, which is said once; without tokens version 1 does', async () => {
    const imds = await started(startImds);
    imds.tokens = 'lost';
    const lost = listen(source(imds.url));
    await until('two tries', () => imds.asked.filter((one) => one.startsWith('PUT')).length >= 2);
    expect(lost.problems).toEqual([expect.stringMatching(/HttpPutResponseHopLimit to 2/)]);
    imds.action = interruption;
    imds.allowsVersion1 = true;
    await until('the notice by version 1', () => lost.last()?.what === 'stop');
    imds.tokens = 'none';
    const none = listen(source(imds.url));
    await until('the notice', () => none.last()?.what === 'stop');
    expect(none.problems).toEqual([]);
  });

  test('nobody there is said once, with what it means', async () => {
    const imds = await startImds();
    await imds.close();
    const heard = listen(source(imds.url));
    await until('the problem', () => heard.problems.length > 0);
    expect(heard.problems).toEqual([expect.stringMatching(/ECONNREFUSED.*checkpoints must come by timer/)]);
    expect(heard.notices).toEqual([]);
  });
});

describe('Google Compute Engine', () => {
  test('a preemption is told by a question that was held back, and only once', async () => {
    const gce = await started(startGce);
    const env = { GCE_METADATA_HOST: gce.url.replace('http://', '') };
    const heard = listen(gcePreemptedSource({ env, now: () => NOW_MS, holdMs: 1_000, retryMs: 500 }));
    const held = (): number => gce.asked.filter((one) => one.includes('wait_for_change')).length;
    await until('a question to be held back', () => held() > 0);
    expect(heard.notices).toEqual([undefined]);
    gce.set('preempted', 'TRUE');
    await until('the notice', () => heard.last()?.what === 'stop');
    expect(heard.last()).toMatchObject({ deadline: { atMs: NOW_MS + 30_000, kind: 'taken-away' } });
    // The answer that nothing has changed is no new notice.
    const before = held();
    await until('two more questions', () => held() >= before + 2);
    expect(heard.notices).toHaveLength(2);
    expect(heard.problems).toEqual([]);
  });

  test('what stands at the first look may happen at any moment', async () => {
    const gce = await started(startGce);
    gce.set('preempted', 'TRUE');
    gce.set('maintenance-event', 'TERMINATE_ON_HOST_MAINTENANCE');
    const settings = { env: { GCE_METADATA_HOST: gce.url }, now: () => NOW_MS, holdMs: 1_000, retryMs: 500 };
    for (const source of [gcePreemptedSource(settings), gceMaintenanceSource(settings)]) {
      const heard = listen(source);
      await until('the notice', () => heard.last() !== undefined);
      expect(heard.last()).toMatchObject({ what: 'stop', deadline: { atMs: NOW_MS } });
    }
  });

  test('maintenance that ends the machine is a notice, one that moves it is none', async () => {
    const gce = await started(startGce);
    const heard = listen(gceMaintenanceSource({ env: { GCE_METADATA_HOST: gce.url }, holdMs: 1_000, retryMs: 500 }));
    await until('the first answer', () => heard.notices.length > 0);
    gce.set('maintenance-event', 'MIGRATE_ON_HOST_MAINTENANCE');
    await until('the next answer', () => heard.notices.length > 1);
    expect(heard.last()).toBeUndefined();
    gce.set('maintenance-event', 'TERMINATE_ON_HOST_MAINTENANCE');
    await until('the notice', () => heard.last()?.what === 'stop');
  });

  test('a service that is not there is said once, by its address', async () => {
    const gce = await startGce();
    await gce.close();
    const heard = listen(gcePreemptedSource({ env: { GCE_METADATA_HOST: gce.url }, retryMs: 20 }));
    await until('the problem', () => heard.problems.length > 0);
    expect(heard.problems).toEqual([expect.stringContaining(gce.url)]);
  });
});

describe('Azure', () => {
  test('the soonest event that ends the machine counts; one that is taken back is withdrawn', async () => {
    const azure = await started(startAzure);
    azure.events = [{ EventId: 'f', EventType: 'Freeze', NotBefore: 'Wed, 25 Nov 2026 12:01:00 GMT' }];
    const heard = listen(azureSource({ env: { FF_AZURE_METADATA_HOST: azure.url }, pollMs: 20, now: () => NOW_MS }));
    await until('the first look', () => heard.notices.length > 0);
    expect(heard.last()).toBeUndefined();
    azure.events = [
      { EventId: 'r', EventType: 'Redeploy', NotBefore: 'Wed, 25 Nov 2026 12:10:00 GMT' },
      { EventId: 'p', EventType: 'Preempt', NotBefore: 'Wed, 25 Nov 2026 12:00:30 GMT' },
    ];
    await until('the notice', () => heard.last() !== undefined);
    expect(heard.last()).toMatchObject({ what: 'stop', deadline: { atMs: NOW_MS + 30_000, kind: 'taken-away' } });
    azure.events = [];
    await until('its withdrawal', () => heard.last() === undefined);
    expect(heard.problems).toEqual([]);
  });

  test('an event of another machine of the set is none of ours, unless the name cannot be had', async () => {
    const azure = await started(startAzure);
    const event = { EventId: 'p', EventType: 'Preempt', NotBefore: 'Wed, 25 Nov 2026 12:00:30 GMT' };
    azure.events = [{ ...event, Resources: ['vm_2', 'vm_11'] }];
    const source = (): NoticeSource =>
      azureSource({ env: { FF_AZURE_METADATA_HOST: azure.url }, pollMs: 20, now: () => NOW_MS });
    const heard = listen(source());
    await until('two looks', () => heard.notices.length > 1);
    expect(heard.notices.every((one) => one === undefined)).toBe(true);
    azure.events = [{ ...event, Resources: ['vm_2', 'VM_1'] }];
    await until('the notice', () => heard.last() !== undefined);
    expect(azure.asked.filter((one) => one.includes('/compute/name'))).toHaveLength(1);
    azure.events = [{ ...event, Resources: ['vm_2'] }];
    await until('its withdrawal', () => heard.last() === undefined);
    azure.name = undefined;
    const nameless = listen(source());
    await until('the notice', () => nameless.last() !== undefined);
    expect([heard.problems, nameless.problems]).toEqual([[], []]);
    expect(readEvents(JSON.stringify({ Events: [{ ...event, Resources: [] }] }), NOW_MS, 'vm_1')?.what).toBe('stop');
  });

  test('an event that has begun is now, in the same words at each look; what is no list of events is a problem', () => {
    const body = JSON.stringify({ Events: [null, 7, { EventType: 'Reboot', NotBefore: '' }] });
    expect(readEvents(body, NOW_MS)).toMatchObject({ deadline: { atMs: NOW_MS } });
    expect(readEvents(body, NOW_MS + 1_000)?.detail).toBe(readEvents(body, NOW_MS)?.detail);
    expect(() => readEvents('{}', NOW_MS)).toThrow('list of events');
  });
});

describe('a moment', () => {
  test('far ahead is waited for, also where a timer of Node.js does not reach so far', async () => {
    const far = listen(momentSource(Date.now() + 30 * 86_400_000, 'a limit'));
    const near = listen(momentSource(Date.now() + 50, 'another'));
    await until('the near one', () => near.last()?.what === 'stop-now');
    expect(far.notices).toEqual([undefined]);
  });
});

describe('Slurm', () => {
  const line = (fields: string): string =>
    `JobId=7 JobName=x UserId=ann(1000) JobState=RUNNING Requeue=1 ${fields} SubmitTime=2026-11-25T10:00:00 WorkDir=/home/ann\n`;

  test('EndTime is the deadline, in universal time, and PreemptTime says why', () => {
    const atMs = Date.UTC(2026, 10, 25, 14, 0, 0);
    const read = (fields: string): Notice | undefined => readJob(line(fields), '7');
    const running = 'StartTime=2026-11-25T13:00:00 EndTime=2026-11-25T14:00:00';
    expect(read(running)).toMatchObject({ what: 'stop', deadline: { atMs, kind: 'limit' } });
    expect(read(running)?.detail).toMatch(/^Slurm ends/);
    expect(read(`${running} PreemptTime=2026-11-25T13:59:00`)?.detail).toMatch(/^Slurm preempts/);
    expect(read('EndTime=Unknown')).toBeUndefined();
    expect(read('EndTime=Unknown PreemptTime=2026-11-25T13:59:00')?.what).toBe('stop-now');
  });

  test('of an array only the record of this task counts; a time in another format is a problem', () => {
    const sibling = line('EndTime=2026-11-25T14:00:00').replace('JobId=7', 'JobId=71');
    const all = `${sibling}${line('EndTime=Unknown')}${sibling.replace('JobId=71', 'JobId=8')}`;
    expect(readJob(all, '7')).toBeUndefined();
    expect(readJob(all, '71')?.what).toBe('stop');
    expect(() => readJob(sibling, '7')).toThrow('no record of this job');
    expect(() => readJob(line('EndTime=25/11-14:00'), '7')).toThrow('EndTime=25/11-14:00 is no time');
    expect(() => readJob(line(''), '7')).toThrow('is no time');
  });

  /** An `scontrol` that does as the test says, and may be told otherwise. */
  function standIn(): { scontrol: string; script: (body: string) => void } {
    const scontrol = join(makeDirectory(), 'scontrol');
    const script = (body: string): void => {
      // A file that is open for writing cannot be executed: the finished one takes its place.
      writeFileSync(`${scontrol}.new`, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
      renameSync(`${scontrol}.new`, scontrol);
    };
    return { scontrol, script };
  }

  test('the end in the environment counts until scontrol has answered; what it says replaces it, sooner or later', async () => {
    const { scontrol, script } = standIn();
    const at = (hours: number): number => Date.UTC(2026, 10, 25, hours, 0, 0);
    script('exit 1');
    const heard = listen(slurmSource({ jobId: '7', endsAtMs: at(14), pollMs: 20, scontrol }));
    await until('a look', () => heard.problems.length > 0);
    const limit = (atMs: number) => ({ what: 'stop', deadline: { atMs, kind: 'limit' } });
    expect(heard.notices).toMatchObject([limit(at(14))]);
    for (const [end, notice] of [
      ['2026-11-25T14:00:00', limit(at(14))],
      ['2026-11-25T19:00:00', limit(at(19))],
      ['2026-11-25T13:00:00', limit(at(13))],
      ['Unknown', undefined],
    ] as const) {
      script(`echo '${line(`EndTime=${end}`).trim()}'`);
      const before = heard.notices.length;
      await until(`${end} to be heard`, () => heard.notices.length > before + 1);
      if (notice === undefined) expect(heard.last()).toBeUndefined();
      else expect(heard.last()).toMatchObject(notice);
      // The same end in the same words, whoever says it: else it would be news.
      if (end.includes('T14')) expect(heard.last()?.detail).toBe(heard.notices[0]?.detail);
    }
    script('exit 1');
    const { length } = heard.problems;
    await until('the problem', () => heard.problems.length > length);
    // A controller that is away for a while has taken nothing back, and the environment knows less.
    expect(heard.last()).toBeUndefined();
  });

  test('scontrol is asked again and again; when it fails, that is said once', async () => {
    const { scontrol, script } = standIn();
    script('echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1');
    const heard = listen(slurmSource({ jobId: '7', pollMs: 20, scontrol }));
    await until('the problem', () => heard.problems.length > 0);
    script(
      `[ "$* $SLURM_TIME_FORMAT $TZ" = "show job -o 7 standard UTC0" ] || exit 3; echo '${line('EndTime=2026-11-25T14:00:00').trim()}'`,
    );
    await until('the notice', () => heard.last()?.what === 'stop');
    expect(heard.problems[0]).toMatch(/Unable to contact slurm controller/);
  });
});

describe('this machine', () => {
  const options = { parseDuration, pollMs: 20, now: () => NOW_MS };

  test('a time limit is known at once', async () => {
    const heard = listen(timeLimitSource(NOW_MS, 'the time limit'));
    await heard.ended;
    expect(heard.notices).toEqual([
      {
        what: 'stop',
        deadline: { atMs: NOW_MS, kind: 'limit' },
        detail: 'the time limit is reached at 2026-11-25T12:00:00.000Z',
      },
    ]);
  });

  test('a file that appears says when; one that goes away withdraws it', async () => {
    const path = join(makeDirectory(), 'leave');
    const heard = listen(fileSource(path, options));
    writeFileSync(path, '90s\n');
    await until('the notice', () => heard.last()?.what === 'stop');
    expect(heard.last()).toMatchObject({ deadline: { atMs: NOW_MS + 90_000 } });
    rmSync(path);
    await until('its withdrawal', () => heard.last() === undefined);
    writeFileSync(path, '');
    await until('the next', () => heard.last()?.what === 'stop-now');
  });

  test('a file that was there before was meant for an earlier run', async () => {
    const path = join(makeDirectory(), 'leave');
    writeFileSync(path, '');
    const old = listen(fileSource(path, options));
    const other = join(makeDirectory(), 'other');
    const fresh = listen(fileSource(other, options));
    writeFileSync(other, '');
    await until('the other', () => fresh.last()?.what === 'stop-now');
    expect(old.notices).toEqual([undefined]);
    writeFileSync(path, '2026-11-25T13:00:00Z');
    await until('its change', () => old.last()?.what === 'stop');
    expect(old.last()).toMatchObject({ deadline: { atMs: NOW_MS + 3_600_000 } });
  });

  test('a command that ends with 0 is a notice; other codes are none, and one that cannot run is a problem', async () => {
    const path = join(makeDirectory(), 'go');
    const heard = listen(commandSource(`test -e ${path} && echo 5m`, options));
    const broken = listen(commandSource('/no/such/program', options));
    await until('the problem', () => broken.problems.length > 0);
    await until('the first answer', () => heard.notices.length > 0);
    expect(broken.problems).toEqual([expect.stringContaining('127')]);
    expect([heard.notices, heard.problems]).toEqual([[undefined], []]);
    writeFileSync(path, '');
    await until('the notice', () => heard.last()?.what === 'stop');
    expect(heard.last()).toMatchObject({ deadline: { atMs: NOW_MS + 300_000 } });
    await heard.ended;
  });

  test('a command that is true from the start counts when it has been false', async () => {
    const directory = makeDirectory();
    const [path, count] = [join(directory, 'go'), join(directory, 'count')];
    writeFileSync(path, '');
    writeFileSync(count, '');
    const heard = listen(commandSource(`echo >> ${count}; test -e ${path}`, options));
    const looks = (): number => readFileSync(count, 'utf8').length;
    await until('three looks', () => looks() > 2);
    expect(heard.notices).toEqual([undefined]);
    rmSync(path);
    const before = looks();
    await until('two more', () => looks() > before + 1);
    writeFileSync(path, '');
    await until('the notice', () => heard.last()?.what === 'stop-now');
  });

  test('a command ends with its shell, or at the timeout, though something holds its output', async () => {
    const { signal } = new AbortController();
    const left = await runCommand(['/bin/sh', '-c', 'sleep 30 & echo $!'], { timeoutMs: 60_000, signal });
    expect(left).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\n$/) as unknown });
    process.kill(Number(left.stdout), 'SIGKILL');
    const away = 'setsid sleep 30 & echo $!; sleep 30';
    const late = await runCommand(['/bin/sh', '-c', away], { timeoutMs: 500, signal });
    process.kill(Number(late.stdout), 'SIGKILL');
    expect(late.code).toBeNull();
  });

  test('a file that cannot be looked at is a problem, not an error', async () => {
    const path = join(makeDirectory(), 'loop');
    symlinkSync(path, path);
    const heard = listen(fileSource(path, options));
    await until('the problem', () => heard.problems.length > 0);
    expect(heard.problems).toEqual([expect.stringMatching(/cannot be read.*ELOOP/)]);
  });

  test('what does not answer is asked less often, a slow source at its usual pace', () => {
    expect([0, 1, 3, 9].map((failures) => pauseMs(1_000, failures))).toEqual([1_000, 2_000, 8_000, 10_000]);
    expect([0, 1, 9].map((failures) => pauseMs(10_000, failures))).toEqual([10_000, 20_000, 30_000]);
    expect([0, 9, 5000].map((failures) => pauseMs(40_000, failures))).toEqual([40_000, 40_000, 40_000]);
  });

  test('what is neither a duration nor a time means now', () => {
    expect(readDeadline('soon', 'x', options, NOW_MS)).toEqual({ what: 'stop-now', detail: 'x asks for it' });
    expect(readDeadline('\n90s', 'x', options, NOW_MS).what).toBe('stop-now');
  });
});
