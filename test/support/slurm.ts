// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { USER_ID } from './bed.js';
import { Container } from './container.js';
import { canMakeRoots, MAKE_ROOT_MS, type RootRecipe } from './debian-root.js';
import type { MadePackage } from './package.js';
import type { Answer } from './place.js';
import { FULL } from './random.js';
import { sleep, until } from './until.js';

/** Whether Slurm can be had here; test/skips.json names what else is not tested. */
export const hasSlurm = canMakeRoots;

const SLURM: RootRecipe = {
  suite: 'bookworm',
  packages: ['slurmctld', 'slurmd', 'slurm-client', 'munge', 'procps'],
};

const START_MS = 60_000;
/** The first time, with the making of the root. */
export const SLURM_START_MS = MAKE_ROOT_MS + START_MS;

/** The user made for the purpose, in all that she does: nothing of ours is on her PATH. */
export const USER = 'ann';
const HOME = `/home/${USER}`;
const USER_ENV = { PATH: '/usr/local/bin:/usr/bin:/bin', HOME, USER, LANG: 'C.UTF-8' };
const ROOT_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };

type LogName = 'slurm/slurmctld.log' | `slurm/slurmd-${string}.log` | 'fastfreeze-slurm.log';

/** An application that counts as our fixtures do, and costs little. It ends when `stop` is there. */
export const SOLVE = `#!/bin/sh
n=0
while [ ! -e stop ]; do
  echo "$n step"
  n=$((n + 1))
  sleep 0.1
done
echo "$n done"
`;

export interface SlurmOptions {
  /** Their names; each has a slurmd of its own. All are the same machine, so a file of one is there on all. [node1] */
  readonly nodes?: readonly string[];
  /** How Slurm finds the processes of a job. [linuxproc] */
  readonly proctrack?: 'linuxproc' | 'cgroup';
}

/** Whether a job's processes can be tracked by control groups: of version 1 here, since those of version 2 ask for systemd. */
export function hasFreezer(): boolean {
  const words = ['--mount', 'mount', '-t', 'cgroup', '-o', 'freezer', 'freezer', '/mnt'];
  return process.getuid?.() === 0 && spawnSync('unshare', words, { stdio: 'ignore' }).status === 0;
}

/**
 * slurmctld, slurmd and munged of Debian 12 (22.05): a container in which no systemd runs, with the package at
 * /opt/fastfreeze and a user. When it is stopped nothing is left.
 */
export class Slurm {
  readonly #jobs: SlurmJob[] = [];

  private constructor(
    private readonly container: Container,
    private readonly nodes: readonly string[],
    private readonly isTracking: boolean,
  ) {}

  /** `lines` go to slurm.conf beside what the nodes need. */
  static async start(made: MadePackage, lines: readonly string[], options: SlurmOptions = {}): Promise<Slurm> {
    const { nodes = ['node1'], proctrack = 'linuxproc' } = options;
    const container = await Container.start(SLURM, {
      mounts: { '/opt/fastfreeze': made.extracted },
      hidden: [],
      writable: ['etc', 'var/lib', 'var/spool'],
      hostname: 'node1',
    });
    const slurm = new Slurm(container, nodes, proctrack === 'cgroup');
    try {
      mkdirSync(join(container.root, 'etc/slurm'), { recursive: true });
      const all = [
        ...CONFIGURATION,
        `ProctrackType=proctrack/${proctrack}`,
        ...nodeLines(nodes),
        ...PARTITIONS,
        ...lines,
      ];
      writeFileSync(join(container.root, 'etc/slurm/slurm.conf'), `${all.join('\n')}\n`);
      if (proctrack === 'cgroup') await slurm.root(['sh', '-c', MOUNT_FREEZER]);
      await slurm.root(['sh', '-c', START, 'sh', USER, String(USER_ID), ...nodes]);
      const isUp = async (): Promise<boolean> => {
        const states = await Promise.all(nodes.map(async (node) => await slurm.nodeState(node)));
        return states.every((state) => state === 'IDLE');
      };
      await until('the nodes to be idle', isUp, START_MS, () => slurm.report());
      return slurm;
    } catch (error) {
      await slurm.stop();
      throw error;
    }
  }

  /** A command of root's; throws when it fails. */
  async root(words: readonly string[]): Promise<string> {
    return succeeded(words, await this.container.exec(words, ROOT_ENV));
  }

  /** A command of the user's, in a folder of hers; throws when it fails. */
  async user(folder: string, script: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
    const words = ['sh', '-c', `cd "${join(HOME, folder)}" && ${script}`];
    return succeeded(words, await this.container.exec(words, { ...USER_ENV, ...env }, 'user'));
  }

  /** A folder of the user's with an application in it. */
  folder(name: string, files: Readonly<Record<string, string>> = {}): void {
    const path = this.path(name);
    mkdirSync(path);
    chownSync(path, USER_ID, USER_ID);
    for (const [file, text] of Object.entries({ solve: SOLVE, ...files })) this.write(join(name, file), text);
  }

  /** A file of the user's, which she can run. */
  write(name: string, text: string): void {
    writeFileSync(this.path(name), text);
    chownSync(this.path(name), USER_ID, USER_ID);
    chmodSync(this.path(name), 0o755);
  }

  /** Where we see what is in the user's home. */
  path(...names: string[]): string {
    return join(this.container.root, HOME, ...names);
  }

  /** Where we see anything of the node. */
  nodePath(path: string): string {
    return join(this.container.root, path);
  }

  /** The job that a command has submitted, by what it printed: its ID is the last word. Its output is `out`, `err` beside. */
  submitted(folder: string, said: string, out = 'out', err = 'err'): SlurmJob {
    const id = /(\d+)\s*$/.exec(said)?.[1];
    if (id === undefined) throw new Error(`no job was submitted: ${said}`);
    const job = new SlurmJob(this, id, this.path(folder, out), this.path(folder, err));
    this.#jobs.push(job);
    return job;
  }

  /** `sbatch` with files for its output that hold nothing else. */
  async sbatch(folder: string, options: string, script: string): Promise<SlurmJob> {
    this.write(join(folder, 'job.sh'), script);
    const words = `sbatch --parsable -o out -e err ${options} job.sh`;
    const said = await this.user(folder, words, { FASTFREEZE_IMAGE_BASE: `file:${HOME}/images` });
    return this.submitted(folder, said);
  }

  async nodeState(node = 'node1'): Promise<string> {
    const answer = await this.container.exec(['scontrol', 'show', 'node', '-o', node], ROOT_ENV);
    return / State=(\S+)/.exec(answer.stdout)?.[1] ?? answer.stderr;
  }

  /** Processes of the user's. */
  async processes(): Promise<string> {
    return (await this.container.exec(['ps', '-o', 'pid,args', '-u', USER, '--no-headers'], ROOT_ENV)).stdout.trim();
  }

  /** As if its machine had lost its power: all that runs there, which must be one job, is gone at once, and nobody says so. */
  async losesNode(node: string): Promise<void> {
    const victims = `$(cat /run/slurmd-${node}.pid) $(pgrep -f '^slurmstepd: ') $(pgrep -u ${USER})`;
    // One of them may have ended by itself by then; whether the node is lost is for Slurm to see.
    await this.root(['sh', '-c', `kill -KILL ${victims} || true`]);
  }

  async startsNode(node: string): Promise<void> {
    await this.root(['/usr/sbin/slurmd', '-N', node]);
    const isUp = async (): Promise<boolean> => (await this.nodeState(node)) === 'IDLE';
    await until(`${node} to be back`, isUp, START_MS, () => this.report());
  }

  async stop(): Promise<void> {
    await this.container.stop();
    if (this.isTracking) spawnSync('unshare', ['--mount', 'sh', '-c', REMOVE_GROUPS, 'sh', ...this.nodes]);
  }

  /** All that one of the daemons, or of our hooks, has said. */
  log(name: LogName): string {
    return readIfThere(this.nodePath(`/var/log/${name}`));
  }

  /** What a person wants to see when a test has failed. */
  report(): string {
    const jobs = this.#jobs.map((job) => job.report());
    const slurmd = this.nodes.map((node): LogName => `slurm/slurmd-${node}.log`);
    const logs: LogName[] = ['slurm/slurmctld.log', ...slurmd, 'fastfreeze-slurm.log'];
    return [...jobs, ...logs.map((name) => `--- ${name}\n${this.log(name).slice(-4000)}`)].join('\n');
  }
}

/** A job, as its user sees it. */
export class SlurmJob {
  constructor(
    private readonly slurm: Slurm,
    readonly id: string,
    private readonly outPath: string,
    private readonly errPath: string,
  ) {}

  get stdout(): string {
    return readIfThere(this.outPath);
  }

  get stderr(): string {
    return readIfThere(this.errPath);
  }

  get lines(): number {
    return this.stdout.split('\n').length - 1;
  }

  /** Waits until the application has printed more lines than now. */
  async progresses(count = 3): Promise<void> {
    const target = this.lines + count;
    await this.waits(`${count} more lines`, () => this.lines >= target);
  }

  async says(pattern: RegExp): Promise<void> {
    await this.waits(`${String(pattern)} on standard error`, () => pattern.test(this.stderr));
  }

  /** Waits until its application runs for the nth time, or so many more. */
  async runs(times: number): Promise<void> {
    await this.waits(`start ${times}`, () => this.stderr.split('Application is ready').length > times);
    await this.progresses();
  }

  /** The state in which it stays, and its record. */
  async ends(): Promise<{ state: string; record: string }> {
    const done = await this.waits('its end', async () => {
      const record = await this.record();
      const state = field(record, 'JobState');
      return ['COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT', 'PREEMPTED', 'NODE_FAIL'].includes(state)
        ? { state, record }
        : undefined;
    });
    return done;
  }

  async record(): Promise<string> {
    const all = await this.slurm.root(['scontrol', 'show', 'job', '-o', this.id]);
    return all.split('\n').find((line) => line.startsWith(`JobId=${this.id} `)) ?? '';
  }

  async waits<T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> {
    const slowly = async (): Promise<T | undefined | false> => {
      const value = await probe();
      if (value === undefined || value === false) await sleep(300);
      return value;
    };
    return await until(`job ${this.id}: ${what}`, slowly, WAIT_MS, () => this.slurm.report());
  }

  report(): string {
    return `job ${this.id}\n--- its stderr\n${this.stderr.slice(-3000)}\n--- the end of its stdout\n${this.stdout.slice(-300)}`;
  }
}

/** Slurm looks at limits every 30 s, and restarts as slowly. */
const WAIT_MS = FULL ? 600_000 : 180_000;

export function field(record: string, name: string): string {
  return new RegExp(`(?:^| )${name}=(\\S*)`).exec(record)?.[1] ?? '';
}

function readIfThere(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}

function succeeded(words: readonly string[], { code, stdout, stderr }: Answer): string {
  if (code !== 0) throw new Error(`${words.join(' ')} ended with ${code}:\n${stdout}${stderr}`);
  return stdout;
}

/** Of the controller and all nodes. A requeued job starts again `cred_expire` seconds later. */
const CONFIGURATION = [
  'ClusterName=test',
  'SlurmctldHost=node1(127.0.0.1)',
  'AuthType=auth/munge',
  'AuthInfo=cred_expire=5',
  'SlurmUser=slurm',
  'StateSaveLocation=/var/spool/slurmctld',
  'SlurmdSpoolDir=/var/spool/slurmd-%n',
  'SlurmctldPidFile=/run/slurmctld.pid',
  'SlurmdPidFile=/run/slurmd-%n.pid',
  'SlurmctldLogFile=/var/log/slurm/slurmctld.log',
  'SlurmdLogFile=/var/log/slurm/slurmd-%n.log',
  'TaskPlugin=task/none',
  'JobAcctGatherType=jobacct_gather/none',
  'AccountingStorageType=accounting_storage/none',
  'SelectType=select/cons_tres',
  'SelectTypeParameters=CR_Core',
  'SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0,batch_sched_delay=0',
  'MpiDefault=none',
  'ReturnToService=2',
  'KillWait=10',
  'SlurmdParameters=config_overrides',
  'PreemptType=preempt/partition_prio',
  'PreemptMode=REQUEUE',
];

/** On one machine each needs a port of its own. */
function nodeLines(nodes: readonly string[]): string[] {
  return nodes.map(
    (node, i) =>
      `NodeName=${node} NodeHostname=node1 NodeAddr=127.0.0.1 Port=${6818 + i} CPUs=64 RealMemory=4000 State=UNKNOWN`,
  );
}

const PARTITIONS = [
  'PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=OFF',
  'PartitionName=grace Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=REQUEUE GraceTime=60',
  'PartitionName=middle Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=20 PreemptMode=OFF',
  'PartitionName=graceless Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=30 PreemptMode=REQUEUE GraceTime=0',
  'PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=40 PreemptMode=OFF',
];

/** Everything under the names that the packages expect. */
const START = `
set -eu
echo '127.0.0.1 localhost node1' >/etc/hosts
useradd --uid "$2" --create-home --shell /bin/sh "$1"
shift 2
mkdir -p /run/munge /var/lib/munge /var/log/munge /var/spool/slurmctld /var/log/slurm
head -c 1024 /dev/urandom >/etc/munge/munge.key
chown munge: /etc/munge/munge.key /run/munge /var/lib/munge /var/log/munge
chmod 400 /etc/munge/munge.key
chmod 755 /run/munge
chown slurm: /var/spool/slurmctld /var/log/slurm
# Its daemon asks for control groups also where nothing uses them; those of version 1 it then takes on trust.
echo CgroupPlugin=cgroup/v1 >/etc/slurm/cgroup.conf
setpriv --reuid=munge --regid=munge --clear-groups /usr/sbin/munged --force
/usr/sbin/slurmctld -c
for node; do
  mkdir -p "/var/spool/slurmd-$node"
  /usr/sbin/slurmd -N "$node"
done
`;

/** The machine's own hierarchy, as root of any container with all privileges sees it: what is made there must be removed. */
const MOUNT_FREEZER = `
set -eu
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/freezer
mount -t cgroup -o freezer freezer /sys/fs/cgroup/freezer
`;

const REMOVE_GROUPS = `
mount -t cgroup -o freezer freezer /mnt
for node; do [ ! -d "/mnt/slurm_$node" ] || find "/mnt/slurm_$node" -depth -type d -exec rmdir {} +; done
`;
