// SPDX-License-Identifier: Apache-2.0
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { debianRoot, type RootRecipe } from './debian-root.js';
import { USER_ID, type Identity } from './bed.js';
import { ended, type Answer } from './place.js';
import { childrenOf, signalPid } from './processes.js';
import { until } from './until.js';

export interface ContainerOptions {
  /** Directories of ours that are in it, read-only, by their path inside. */
  readonly mounts: Readonly<Record<string, string>>;
  /** Programs that cannot be run in it. */
  readonly hidden: readonly string[];
  /** It is for a container engine: with the machine's network and control groups. */
  readonly engine?: boolean;
  /** Folders of the root that can be written to as well, in memory: `etc`. */
  readonly writable?: readonly string[];
  readonly hostname?: string;
}

/** What a command has said so far, and how it ends. */
export interface Running {
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly code: Promise<number>;
}

/**
 * A container on one of the Debian roots, as an engine makes it for root (`--privileged --network none`): own mounts, PIDs, host name and
 * network, its root pivoted to, all of it read-only but for what a container needs to write. It ends when its stdin does, and with it
 * everything inside: nothing can be left.
 */
export class Container {
  private constructor(
    private readonly holder: ChildProcess,
    private readonly inside: number,
    private readonly namespaces: readonly string[],
  ) {}

  static async start(recipe: RootRecipe, options: ContainerOptions): Promise<Container> {
    const { mounts, hidden, engine = false, writable = [], hostname = '' } = options;
    const root = await debianRoot(recipe);
    const words = [engine ? 'engine' : '', ...hidden, '--', ...Object.entries(mounts).flat()];
    const own = ['--mount', '--pid', '--uts', '--ipc', ...(engine ? [] : ['--net'])];
    const namespaces = [...own, '--fork', '--kill-child'];
    const holder = spawn('unshare', [...namespaces, 'sh', '-c', ENTER, 'sh', root, ...words], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', WRITABLE: writable.join(' '), NAME: hostname },
    });
    let said = '';
    for (const stream of [holder.stdout, holder.stderr]) stream.on('data', (data: Buffer) => (said += data.toString()));
    const isUp = (): boolean => {
      if (holder.exitCode !== null) throw new Error(`the container ended while it started: ${said}`);
      return said.includes('ready\n');
    };
    await until('the container', isUp, START_MS, () => said);
    const [inside] = childrenOf(holder.pid ?? -1);
    if (inside === undefined) throw new Error(`the container ended at once: ${said}`);
    return new Container(holder, inside, own);
  }

  /** Its root folder, as we see it. */
  get root(): string {
    return `/proc/${this.inside}/root`;
  }

  /** Starts a command in it with exactly this environment, in the root folder. */
  start(words: readonly string[], env: Readonly<Record<string, string>>, as: Identity = 'root'): Running {
    const enter = ['--target', String(this.inside), ...this.namespaces, '--'];
    const drop = as === 'user' ? ['setpriv', `--reuid=${USER_ID}`, `--regid=${USER_ID}`, '--clear-groups'] : [];
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const child = spawn('nsenter', [...enter, ...drop, 'env', '-i', ...variables, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    const code = ended(child, words.join(' '), () => stdout + stderr);
    // Whoever waits for it hears of a failure; until then it is not one of the test run.
    code.catch(() => undefined);
    return { stdout: () => stdout, stderr: () => stderr, code };
  }

  async exec(words: readonly string[], env: Readonly<Record<string, string>>, as?: Identity): Promise<Answer> {
    const running = this.start(words, env, as);
    const code = await running.code;
    return { code, stdout: running.stdout(), stderr: running.stderr() };
  }

  async stop(): Promise<void> {
    if (this.holder.exitCode !== null || this.holder.signalCode !== null) return;
    const exited = once(this.holder, 'exit');
    const timer = setTimeout(() => signalPid(this.inside, 'SIGKILL'), STOP_MS);
    this.holder.stdin?.end();
    await exited;
    clearTimeout(timer);
  }
}

const START_MS = 30_000;
const STOP_MS = 10_000;

/**
 * Pivoted, not chrooted: in a chroot nobody may make user namespaces. The loopback interface is up, as in every container: CRIU connects to
 * itself.
 */
const ENTER = `
set -eu
root=$1
engine=$2
shift 2
[ -n "$engine" ] || ip link set lo up
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
if [ -n "$NAME" ]; then
  hostname "$NAME"
  # Where there are loopback addresses only, getaddrinfo finds none of them for many programs.
  [ -n "$engine" ] || ip addr add 10.0.0.1/32 dev lo
fi
for folder in $WRITABLE; do
  mount -t tmpfs -o mode=755 tmpfs "$root/mnt"
  cp -a "$root/$folder/." "$root/mnt/"
  mount --move "$root/mnt" "$root/$folder"
done
for folder in opt tmp run home var/tmp var/log usr/local/bin; do mount -t tmpfs tmpfs "$root/$folder"; done
chmod 1777 "$root/tmp" "$root/var/tmp"
mount -t proc proc "$root/proc"
if [ -n "$engine" ]; then mount --rbind /sys "$root/sys"; else mount -t sysfs -o ro sysfs "$root/sys"; fi
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
  mount --bind /dev/null "$root$1"
  shift
done
shift
while [ $# -gt 0 ]; do
  mkdir -p "$root$1"
  mount --bind "$2" "$root$1"
  mount -o remount,bind,ro "$root$1"
  shift 2
done
cd "$root"
pivot_root . mnt
cd /
umount -l /mnt
echo ready
# A shell that waits takes leave of all orphans.
exec 3<&0
cat <&3 &
wait $!
`;
