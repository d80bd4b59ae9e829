// SPDX-License-Identifier: Apache-2.0
// A real Slurm (slurmctld, slurmd, munge) whose jobs are frozen and requeued, for a user who was made for it. All stories go on side by
// side, since Slurm's clock ticks in 30 s and a requeue takes its time; the long ones only at full length.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { checkLines } from '../support/lines.js';
import { MAKE_PACKAGE_MS, makePackage } from '../support/package.js';
import { FULL } from '../support/random.js';
import {
  SOLVE,
  USER,
  field,
  hasFreezer,
  hasSlurm,
  Slurm,
  SLURM_START_MS,
  type SlurmJob,
  type SlurmOptions,
} from '../support/slurm.js';
import { sleep, until } from '../support/until.js';

jest.setTimeout(FULL ? 900_000 : 240_000);

const BIN = '/opt/fastfreeze/bin/fastfreeze';
const ADAPTER = '/opt/fastfreeze/batch-adapters/slurm';
const IMAGES = 'images';
const SITE =
  '# ours\nFASTFREEZE_IMAGE_BASE=file:/scratch/%u/images\nSITE_OTHER=theirs\nSITE WRONG=x\nSITE\nSITE_LAST=a=b=';
const NOTICE = '--signal=B:USR1@20';
const SAFE = '--requeue --open-mode=append';

/** Fenced blocks of the adapter's README, by the first line that they have. */
function block(first: RegExp): string[] {
  const text = readFileSync(join(process.cwd(), 'batch-adapters/slurm/README.md'), 'utf8');
  const found = [...text.matchAll(/^```[^\n]*\n(.*?)^```/gms)].find((match) => first.test(match[1] ?? ''));
  if (found === undefined) throw new Error(`no block begins with ${String(first)}`);
  return (found[1] ?? '').split('\n').filter((line) => line !== '');
}

const batchRun = (options = ''): string => `#!/bin/sh\nexec ${BIN} batch run ${options} -- ./solve\n`;

/** What ignores SIGTERM, which Slurm sends to every process of a job that it ends. */
const STUBBORN = SOLVE.replace('\n', "\ntrap '' TERM\n");

/** A job that goes on to its end now: its output is exact, and Slurm has run it so often. */
async function finishes(slurm: Slurm, folder: string, job: SlurmJob, restarts: number): Promise<void> {
  slurm.write(join(folder, 'stop'), '');
  const { state, record } = await job.ends();
  expect([state, field(record, 'ExitCode'), field(record, 'Restarts')]).toEqual(['COMPLETED', '0:0', String(restarts)]);
  expect(job.stderr.split('Application is ready, started from scratch')).toHaveLength(2);
  checkLines(job.stdout);
}

/** What comes before a limit, or by somebody's hand. */
async function notice(slurm: Slurm, folder: string, job: SlurmJob): Promise<void> {
  await slurm.user(folder, `scancel --batch --signal=USR1 ${job.id}`);
}

/** A job with a spool that nothing gets out of until `release`: whoever has its lock is copying, and others wait. */
async function holdsUpload(
  slurm: Slurm,
  folder: string,
): Promise<{ job: SlurmJob; name: string; release: () => Promise<void> }> {
  slurm.folder(folder, { hold: '#!/bin/sh\necho $$ >holder.part\nmv holder.part holder\nexec sleep 300\n' });
  const script = `#!/bin/sh\nmkdir -p spool\n${batchRun('--spool spool')}`;
  const job = await slurm.sbatch(folder, `${NOTICE} ${SAFE}`, script);
  await job.runs(1);
  const name = `slurm-test-${job.id}`;
  const mark = createHash('sha256').update(`file:/home/ann/${IMAGES}/${name}`).digest('hex').slice(0, 16);
  await slurm.user(folder, `{ flock --close spool/fastfreeze-${mark}.lock ./hold >/dev/null 2>&1 & }`);
  const holder = slurm.path(folder, 'holder');
  await job.waits('the lock to be held', () => existsSync(holder));
  const release = async (): Promise<void> => {
    await slurm.root(['kill', readFileSync(holder, 'utf8').trim()]);
  };
  return { job, name, release };
}

type Story = (slurm: Slurm) => Promise<void>;

const SHORT: Record<string, Story> = {
  'the README’s commands, as written, to a job that was resumed': async (slurm) => {
    slurm.folder('readme');
    const session = block(/^export PATH=/);
    const last = session.findIndex((line) => line.startsWith('scancel'));
    expect(last).toBeGreaterThan(0);
    const setUp = session.slice(0, last).join('\n');
    const said = await slurm.user('readme', `{ ${setUp}\necho "$job"; }`);
    const job = slurm.submitted('readme', said, 'solve.out', 'solve.err');
    await job.runs(1);
    await slurm.user('readme', `{ job=${job.id}\n${session[last] ?? ''}\n}`);
    await job.runs(2);
    expect(job.stderr).toContain('Restoring application from generation 1');
    expect(job.stderr).toMatch(/Slurm runs job \d+ again, since RequeueExit has 85/);
    await finishes(slurm, 'readme', job, 1);
  },

  'the README’s script': async (slurm) => {
    slurm.folder('script');
    const lines = block(/^#!\/bin\/bash\n#SBATCH/);
    const script = lines.join('\n').replace('exec fastfreeze', `exec ${BIN}`);
    const job = await slurm.sbatch('script', '', `${script}\n`);
    await job.runs(1);
    await notice(slurm, 'script', job);
    await job.runs(2);
    await finishes(slurm, 'script', job, 1);
  },

  'without RequeueExit, and in a script that goes on: by scontrol': async (slurm) => {
    slurm.folder('scontrol');
    slurm.folder('goes-on');
    const job = await slurm.sbatch('scontrol', `${NOTICE} ${SAFE}`, batchRun('--requeue-exit-code 86'));
    const other = await slurm.sbatch(
      'goes-on',
      SAFE,
      `#!/bin/sh\n${BIN} batch run -- ./solve\ncode=$?\nsleep 60\nexit $code\n`,
    );
    await Promise.all([job.runs(1), other.runs(1)]);
    await Promise.all([
      notice(slurm, 'scontrol', job),
      // Its shell would die of the signal.
      slurm.user('goes-on', `${BIN} checkpoint slurm-test-${other.id}`),
    ]);
    await Promise.all([job.runs(2), other.runs(2)]);
    for (const one of [job, other]) expect(one.stderr).toMatch(/Requeueing job \d+ \(scontrol requeue\)/);
    await finishes(slurm, 'scontrol', job, 1);
    slurm.write('goes-on/stop', '');
    await other.waits('its application’s end', () => other.stdout.endsWith(' done\n'));
    checkLines(other.stdout);
    await slurm.user('goes-on', `scancel ${other.id}`);
  },

  'scancel: not run again, and the image is kept': async (slurm) => {
    slurm.folder('cancelled', { solve: STUBBORN });
    const job = await slurm.sbatch('cancelled', `${NOTICE} ${SAFE}`, batchRun());
    await job.runs(1);
    await slurm.user('cancelled', `scancel ${job.id}`);
    const { record } = await job.ends();
    expect([field(record, 'JobState'), field(record, 'Restarts')]).toEqual(['CANCELLED', '0']);
    expect(job.stderr).toMatch(/Job \d+ is not requeued by us: it was cancelled, .*\. Its image is kept/);

    const again = `#!/bin/sh\nexport FASTFREEZE_JOB_ID=slurm-test-${job.id}\n${batchRun()}`;
    const next = await slurm.sbatch('cancelled', SAFE, again);
    await next.waits('its restore', () => next.stderr.includes('Restoring application from generation 1'));
    slurm.write('cancelled/stop', '');
    expect((await next.ends()).state).toBe('COMPLETED');
    checkLines(next.stdout);
  },

  'a job with --no-requeue is told so, and its image is kept': async (slurm) => {
    slurm.folder('no-requeue');
    const job = await slurm.sbatch('no-requeue', '--no-requeue --open-mode=append', batchRun());
    await job.runs(1);
    await job.says(/Warning: Slurm will not run this job again: it was submitted with --no-requeue/);
    await notice(slurm, 'no-requeue', job);
    const { state, record } = await job.ends();
    // RequeueExit would have it run again all the same, so it leaves with another code.
    expect([state, field(record, 'ExitCode'), field(record, 'Restarts')]).toEqual(['FAILED', '137:0', '0']);
    expect(job.stderr).toMatch(/is not requeued by us: it was submitted with --no-requeue/);
    expect(manifests(slurm, `slurm-test-${job.id}`)).toContain('manifest-00000001.json');
  },

  'the epilog finishes the upload that the kill has cut': async (slurm) => {
    const { job, name, release } = await holdsUpload(slurm, 'rescued');
    await notice(slurm, 'rescued', job);
    const pidOf = async (entry: string): Promise<string | undefined> => {
      const lines = (await slurm.processes()).split('\n');
      return lines
        .find((line) => line.includes(entry) && line.includes(name))
        ?.trim()
        .split(' ')[0];
    };
    const uploader = await job.waits('the upload to begin', () => pidOf('spool-main.js'));
    await job.waits('the epilog', async () => (await slurm.processes()).includes('slurm-rescue-main.js'));
    expect(manifests(slurm, name)).toEqual([]);
    // As proctrack/cgroup does it at a job's end.
    await slurm.root(['kill', '-9', uploader]);
    await release();
    await job.runs(2);
    expect(job.stderr).toContain('Restoring application from generation 1');
    expect(manifests(slurm, name)).toContain('manifest-00000001.json');
    await finishes(slurm, 'rescued', job, 1);
  },

  'where there is no prolog of ours, a job waits for its upload before it leaves': async (slurm) => {
    const { job, name, release } = await holdsUpload(slurm, 'uploads');
    await slurm.root(['sh', '-c', 'umount -l "$0"; rm -r "$0"', `/run/fastfreeze-slurm/${job.id}`]);
    await notice(slurm, 'uploads', job);
    await job.says(/Exiting with exit_code=85/);
    expect(manifests(slurm, name)).toEqual([]);
    await release();
    await job.says(/Slurm runs job \d+ again/);
    expect(manifests(slurm, name)).toContain('manifest-00000001.json');
    await job.runs(2);
    await finishes(slurm, 'uploads', job, 1);
  },

  'a limit that was moved since the job began: what scontrol says counts, not the environment': async (slurm) => {
    slurm.folder('moved');
    // As Slurm has it from 23.02 on, for good.
    const script = `#!/bin/sh\nexport SLURM_JOB_END_TIME=$(($(date +%s) + 20))\n${batchRun()}`;
    const job = await slurm.sbatch('moved', `--time=2 ${SAFE}`, script);
    await job.runs(1);
    await sleep(22_000);
    await job.progresses();
    expect(job.stderr).not.toMatch(/Checkpointing/);
    await finishes(slurm, 'moved', job, 0);
  },

  'explain, in a job: its end by scontrol, and who finishes an upload': async (slurm) => {
    slurm.folder('explain');
    const explain = `${BIN} batch explain --json --spool spool`;
    const script = `#!/bin/sh
export SLURM_JOB_END_TIME=1
${explain}
# Others can look in now, which our prolog does not allow: not its folder, so nobody to finish anything.
chmod 755 /run/fastfreeze-slurm/$SLURM_JOB_ID
${explain}
${BIN} batch explain --spool spool
`;
    const job = await slurm.sbatch('explain', '--time=30', script);
    const { record } = await job.ends();
    const [first = '', second = '', ...text] = job.stdout.split('\n');
    const [one, other] = [first, second].map((line) => JSON.parse(line) as { endsAt: string; spool: unknown });
    const limitMs = Date.parse(one?.endsAt ?? '') - Date.parse(`${field(record, 'StartTime')}Z`);
    expect([limitMs, one?.endsAt]).toEqual([1_800_000, other?.endsAt]);
    const directory = '/home/ann/explain/spool';
    expect(one?.spool).toEqual({ directory, uploadsAfterwards: true });
    expect(other?.spool).toEqual({ directory, uploadsAfterwards: false });
    expect(text.join('\n')).toMatch(/^spool +\S+\/spool: nobody finishes the upload after the job: it counts/m);
  },

  'the task prolog gives what the site has set, and no more': async (slurm) => {
    slurm.folder('exports');
    await slurm.root(['sh', '-c', 'mkdir -p /etc/fastfreeze; printf %s "$0" >/etc/fastfreeze/job.env', SITE]);
    const said = await slurm.user('exports', 'sbatch --parsable -o out -e err --wrap "command -v fastfreeze; env"', {
      SITE_OTHER: 'mine',
    });
    const job = slurm.submitted('exports', said);
    expect((await job.ends()).state).toBe('COMPLETED');
    const lines = job.stdout.split('\n');
    expect(lines[0]).toBe(BIN);
    expect(lines.filter((line) => /^(?:SITE|FASTFREEZE_IMAGE)/.test(line)).sort()).toEqual([
      'FASTFREEZE_IMAGE_BASE=file:/scratch/ann/images',
      'SITE_LAST=a=b=',
      'SITE_OTHER=mine',
    ]);
  },

  'prolog and epilog end with 0, whatever they find': async (slurm) => {
    const hook = async (name: string, ...variables: string[]): Promise<string> =>
      await slurm.root(['env', '-i', ...variables, `${ADAPTER}/${name}`]);
    const job = ['SLURM_JOB_ID=999999', 'SLURM_JOB_UID=64001'];
    const folder = slurm.nodePath('/run/fastfreeze-slurm/999999');
    for (const variables of [
      [],
      ['SLURM_JOB_ID=../etc', 'SLURM_JOB_UID=64001'],
      ['SLURM_JOB_ID=999998', 'SLURM_JOB_UID=x'],
    ]) {
      for (const name of ['prolog', 'epilog']) await hook(name, ...variables);
    }
    expect(existsSync(slurm.nodePath('/run/fastfreeze-slurm/999998'))).toBe(false);
    await hook('prolog', ...job, 'FASTFREEZE=/nowhere');
    expect(readFileSync(join(folder, 'note'), 'utf8')).toMatch(/^\/nowhere does not run on this node/);
    const print = async (variable: string): Promise<string> =>
      await slurm.user('.', `SLURM_JOB_ID=999999 ${variable} ${ADAPTER}/task_prolog`);
    expect(await print('FASTFREEZE_IMAGE_BASE=/i')).toMatch(/^print fastfreeze: \/nowhere does not run on this node/m);
    expect(await print('')).not.toMatch(/^print/m);
    // It is no place to fill the node's memory from.
    const filled = await slurm.user('.', 'cat /dev/zero 2>&1 >/run/fastfreeze-slurm/999999/fill || true');
    expect(filled).toMatch(/No space left on device/);
    // What a user puts there is only ever read as that user.
    await slurm.user('.', 'ln -s /etc/munge/munge.key /run/fastfreeze-slurm/999999/job.json');
    await hook('epilog', ...job);
    expect(existsSync(folder)).toBe(false);
    expect(slurm.log('fastfreeze-slurm.log')).toMatch(/epilog: job 999999: .*(?:permission denied|EACCES)/i);

    // The worst that what it left can start: it has left its group, hears no SIGTERM, keeps the output open, and says more than all.
    slurm.folder('lingers', {
      lingers: "#!/bin/sh\ntrap '' TERM\nsetsid sleep 4321 &\nhead -c 9000000 /dev/zero | tr '\\0' x\nsleep 1234\n",
    });
    await hook('prolog', ...job);
    await slurm.user('.', 'touch /run/fastfreeze-slurm/999999/job.json');
    await hook('epilog', ...job, 'FASTFREEZE=/home/ann/lingers/lingers', 'UPLOAD_TIMEOUT=5');
    expect(await slurm.processes()).not.toMatch(/sleep (?:4321|1234)/);
    expect(existsSync(folder)).toBe(false);
    expect(slurm.log('fastfreeze-slurm.log')).toMatch(/epilog: job 999999: x{500}\n.* batch rescue ended with 137\n/);
  },
};

/** Three limits, and a fourth run in which it is done. */
function outlives(folder: string, options: string): Story {
  return async (slurm) => {
    slurm.folder(folder);
    const job = await slurm.sbatch(folder, `--time=1 ${options} ${SAFE}`, batchRun());
    await job.runs(4);
    await finishes(slurm, folder, job, 3);
    for (const generation of [1, 2, 3]) {
      expect(job.stderr).toContain(`Restoring application from generation ${generation} `);
    }
  };
}

/** Only both of its victims together are enough for the other job. */
async function preempt(slurm: Slurm, partition: string): Promise<void> {
  slurm.folder(partition);
  await slurm.sbatch(partition, `-p ${partition} -c 49`, '#!/bin/sh\nsleep 5\n');
}

const LONG: Record<string, Story> = {
  'a job outlives its time limit three times, by the signal before it': outlives('limit-signal', NOTICE),
  'a job outlives its time limit three times, by what scontrol says': outlives('limit-asked', ''),

  'a limit that is extended and then shortened while the job runs': async (slurm) => {
    slurm.folder('extended');
    const job = await slurm.sbatch('extended', `--time=1 ${SAFE}`, batchRun());
    await job.runs(1);
    const limit = async (minutes: number): Promise<void> => {
      await slurm.root(['scontrol', 'update', `JobId=${job.id}`, `TimeLimit=${minutes}`]);
    };
    await limit(30);
    // Past the limit that it began with.
    await sleep(75_000);
    await job.progresses();
    expect(job.stderr).not.toMatch(/Checkpointing/);
    await limit(3);
    await job.runs(2);
    expect(job.stderr.match(/Notice: Slurm ends this job at /g)?.length).toBeGreaterThanOrEqual(4);
    expect(job.stderr).not.toMatch(/DUE TO TIME LIMIT/);
    await finishes(slurm, 'extended', job, 1);
  },

  'preemption: with grace, by the user signal and by asking; without grace': async (slurm) => {
    for (const folder of ['signalled', 'asked']) slurm.folder(folder);
    const options = `-p grace -c 16 ${SAFE}`;
    const signalled = await slurm.sbatch('signalled', `${options} ${NOTICE} --time=60`, batchRun());
    // Slurm tells of an end that grace brings forward only where there was to be one.
    const asked = await slurm.sbatch('asked', `${options} --time=60`, batchRun());
    await Promise.all([signalled.runs(1), asked.runs(1)]);
    await preempt(slurm, 'middle');
    await Promise.all([signalled.runs(2), asked.runs(2)]);
    expect(signalled.stderr).toMatch(/Checkpointing application to \S+ \(SIGUSR1 came\)/);
    expect(asked.stderr).toMatch(/Notice: Slurm preempts this job at /);
    await Promise.all([finishes(slurm, 'signalled', signalled, 1), finishes(slurm, 'asked', asked, 1)]);

    slurm.folder('abrupt', { solve: STUBBORN });
    const abrupt = await slurm.sbatch('abrupt', `-p graceless -c 48 ${SAFE}`, batchRun());
    await abrupt.runs(1);
    await preempt(slurm, 'high');
    await abrupt.runs(2);
    expect(abrupt.stderr).toMatch(/Checkpointing application to \S+ \(SIGTERM came\)/);
    await finishes(slurm, 'abrupt', abrupt, 1);
  },

  'a job that hits its limit with an image of this attempt is requeued by the epilog': async (slurm) => {
    slurm.folder('timeout', { solve: STUBBORN });
    // It hears of nothing in time, and is killed.
    const options = '--notice-on USR2 --notice-from none --checkpoint-every 10s --output exact.out';
    const job = await slurm.sbatch('timeout', `--time=1 ${SAFE}`, batchRun(options));
    await job.waits('a start', () => job.stderr.includes('Application is ready'));
    await job.waits('a restart', () => job.stderr.includes('Application is ready, restore took'));
    expect(job.stderr).toMatch(/DUE TO TIME LIMIT/);
    slurm.write('timeout/stop', '');
    const { state, record } = await job.ends();
    expect([state, field(record, 'Restarts')]).toEqual(['COMPLETED', '1']);
    checkLines(readFileSync(slurm.path('timeout', 'exact.out'), 'utf8'));
  },

  'an array of four: each task has its own image, and is requeued by itself, also by scontrol': async (slurm) => {
    slurm.folder('array');
    const script = `#!/bin/sh\n${batchRun('--requeue-exit-code 86')}`;
    slurm.write('array/job.sh', script);
    const said = await slurm.user('array', `sbatch --parsable --array=1-4 -o out-%a -e err-%a ${SAFE} job.sh`, {
      FASTFREEZE_IMAGE_BASE: 'file:/home/ann/images',
    });
    const array = said.trim();
    const ids = async (): Promise<string[]> => {
      const all = await slurm.root(['scontrol', 'show', 'job', '-o', array]);
      return [1, 2, 3, 4].flatMap((task) => {
        const record = all.split('\n').find((line) => field(line, 'ArrayTaskId') === String(task));
        return record === undefined ? [] : [field(record, 'JobId')];
      });
    };
    const found = await until('four tasks', async () => ((await ids()).length === 4 ? await ids() : undefined));
    const tasks = found.map((id, i) => slurm.submitted('array', id, `out-${i + 1}`, `err-${i + 1}`));
    await Promise.all(tasks.map(async (task) => await task.runs(1)));
    await slurm.user('array', `scancel --batch --signal=USR1 ${array}`);
    await Promise.all(tasks.map(async (task) => await task.runs(2)));
    expect(readdirSync(slurm.path(IMAGES)).filter((name) => name.startsWith(`slurm-test-${array}-`))).toHaveLength(4);
    await Promise.all(tasks.map(async (task) => await finishes(slurm, 'array', task, 1)));
  },
};

/** On two nodes, one after the other: what is lost with a node is all that runs on it. */
const NODES: Record<string, Story> = {
  'a job of two nodes is told what is frozen of it; one of several tasks of an srun is refused': async (slurm) => {
    slurm.folder('wide');
    const job = await slurm.sbatch('wide', `-N 2 ${SAFE}`, batchRun());
    await job.runs(1);
    await job.says(/Warning: the job has 2 nodes: what runs on this one is frozen, what srun starts, .* is not/);
    await notice(slurm, 'wide', job);
    await job.runs(2);
    await finishes(slurm, 'wide', job, 1);

    // For a user without subordinate ids srun can start nothing: there she is uid 0, and Slurm knows better.
    slurm.folder('inside', { solve: '#!/bin/sh\nsrun -N 2 sleep 301\necho "srun: $?"\nexec sleep 300\n' });
    const inside = await slurm.sbatch('inside', `-N 2 ${SAFE}`, batchRun());
    await inside.says(/srun: error: .*Invalid user id/);
    await slurm.root(['scancel', inside.id]);
    await inside.ends();

    slurm.folder('tasks');
    const script = `#!/bin/sh
${BIN} batch explain
srun -n 2 ${BIN} batch run -- ./solve
echo "srun: $?"
${BIN} batch run -- srun ./solve
echo "run: $?"
`;
    const tasks = await slurm.sbatch('tasks', '-N 2', script);
    expect((await tasks.ends()).state).toBe('COMPLETED');
    expect(tasks.stdout).toMatch(/^warn +the job has 2 nodes: /m);
    expect(tasks.stderr.match(/^Error: .* this is one of 2 tasks of an srun/gm)).toHaveLength(2);
    expect(tasks.stderr.match(/^Error: .* srun would be frozen without what it starts/gm)).toHaveLength(1);
    expect(tasks.stdout).toMatch(/^srun: 2\nrun: 2$/m);
  },

  'a node that is lost: its job goes on from the last checkpoint on the other one': async (slurm) => {
    slurm.folder('lost');
    const options = '--checkpoint-every 5s --output exact.out';
    const job = await slurm.sbatch('lost', SAFE, batchRun(options));
    const host = async (): Promise<string> => field(await job.record(), 'BatchHost');
    const output = (): string => readFileSync(slurm.path('lost', 'exact.out'), 'utf8');
    await job.says(/Checkpoint 2 complete/);
    const lost = await host();
    const saved = output().length;
    await job.waits('work that will be lost', () => output().length > saved + 50);
    await slurm.losesNode(lost);
    await job.says(/Application is ready, restore took/);
    expect(job.stderr).toMatch(/Restoring application from generation [2-9]\d* /);
    expect(await slurm.nodeState(lost)).toMatch(/^DOWN/);
    const other = await host();
    expect([lost, other].sort()).toEqual(['node1', 'node2']);
    slurm.write('lost/stop', '');
    const { state, record } = await job.ends();
    expect([state, field(record, 'ExitCode'), field(record, 'Restarts')]).toEqual(['COMPLETED', '0:0', '1']);
    checkLines(output());
    // It comes back, and has nothing more to do with the job.
    await slurm.startsNode(lost);
  },
};

/** Where control groups tell what belongs to a job, so that nothing outlives it. */
const TRACKED: Record<string, Story> = {
  'with proctrack/cgroup all that is restored belongs to the job, and what left its tree ends with it': async (
    slurm,
  ) => {
    slurm.folder('tracked');
    const script = `#!/bin/sh\nsetsid sleep 4321 &\n${batchRun()}`;
    const job = await slurm.sbatch('tracked', `${NOTICE} ${SAFE}`, script);
    /** The control groups of all processes of the user's. */
    const groups = async (): Promise<string[]> => {
      const list = `for pid in $(pgrep -u ${USER}); do sed -n 's/.*:freezer://p' /proc/$pid/cgroup || true; done`;
      return [...new Set((await slurm.root(['sh', '-c', list])).trim().split('\n'))];
    };
    const step = `/slurm_node1/uid_64001/job_${job.id}/step_batch`;
    for (const times of [1, 2]) {
      await job.runs(times);
      // What is just ending has none any more.
      await job.waits(`all to be in ${step}`, async () => (await groups()).join() === step);
      if (times === 1) await notice(slurm, 'tracked', job);
    }
    await finishes(slurm, 'tracked', job, 1);
    await job.waits('its end', async () => (await slurm.processes()) === '');

    // Here it is Slurm itself that cuts the upload.
    const { job: cut, name, release } = await holdsUpload(slurm, 'cut');
    await notice(slurm, 'cut', cut);
    await cut.waits('the epilog', async () => (await slurm.processes()).includes('slurm-rescue-main.js'));
    expect(await slurm.processes()).not.toContain('spool-main.js');
    expect(manifests(slurm, name)).toEqual([]);
    await release();
    await cut.runs(2);
    expect(manifests(slurm, name)).toContain('manifest-00000001.json');
    await finishes(slurm, 'cut', cut, 1);
  },
};

function manifests(slurm: Slurm, job: string): string[] {
  const path = slurm.path(IMAGES, job);
  return existsSync(path) ? readdirSync(path).filter((name) => name.startsWith('manifest-')) : [];
}

if (!hasSlurm) test.skip('under Slurm', () => undefined);
else {
  describe('under Slurm', () => tells({ ...SHORT, ...(FULL ? LONG : {}) }));
  if (FULL) {
    // A node that does not answer is given up after so many seconds.
    describe('under Slurm, on two nodes', () =>
      tells(NODES, { lines: ['SlurmdTimeout=15'], nodes: ['node1', 'node2'], inTurn: true }));
    const tracked = 'under Slurm, with proctrack/cgroup';
    if (hasFreezer()) describe(tracked, () => tells(TRACKED, { proctrack: 'cgroup' }));
    else test.skip(tracked, () => undefined);
  }
}

interface Telling extends SlurmOptions {
  /** Of slurm.conf, beside those of the README. */
  readonly lines?: readonly string[];
  /** Not side by side. */
  readonly inTurn?: boolean;
}

/** A Slurm for these stories. */
function tells(all: Readonly<Record<string, Story>>, { lines = [], inTurn = false, ...options }: Telling = {}): void {
  const stories = Object.entries(all);
  const told = new Map<string, Promise<void>>();
  let slurm: Slurm;

  beforeAll(async () => {
    const made = makePackage();
    slurm = await Slurm.start(made, [...block(/^RequeueExit=/), ...lines], options);
    let before: Promise<unknown> = Promise.resolve();
    for (const [name, story] of stories) {
      const going = inTurn ? before.then(() => story(slurm)) : story(slurm);
      // Its test will see to it.
      before = going.catch(() => undefined);
      told.set(name, going);
    }
  }, MAKE_PACKAGE_MS + SLURM_START_MS);

  afterAll(async () => {
    await slurm.stop();
  });

  test.each(stories.map(([name]) => name))('%s', async (name) => {
    await told.get(name);
  });

  test('nothing of ours is left on the node, and it was never drained', async () => {
    await until(
      'the node to be idle',
      async () => (await slurm.nodeState()) === 'IDLE',
      120_000,
      () => slurm.report(),
    );
    // A node is idle when the scripts have ended; what they started may need a moment more.
    await until(
      'processes to end',
      async () => (await slurm.processes()) === '',
      30_000,
      () => slurm.report(),
    );
    const names = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);
    const left = {
      '/run/fastfreeze-slurm': [],
      '/tmp/fastfreeze-64001': [],
      '/var/tmp': ['fastfreeze'],
      '/var/tmp/fastfreeze': [],
    };
    expect(Object.fromEntries(Object.keys(left).map((path) => [path, names(slurm.nodePath(path))]))).toEqual(left);
    // Of each job the controller tells; of a node that it drains as well.
    expect(slurm.log('slurm/slurmctld.log')).toMatch(/_job_complete: JobId=\d+ done/);
    expect(slurm.log('slurm/slurmctld.log')).not.toMatch(/drain/i);
  });
}
