// SPDX-License-Identifier: Apache-2.0
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { USER_ID } from './bed.js';
import { Container, type Running } from './container.js';
import { canMakeRoots, debianRoot, olderRecipe, type RootRecipe } from './debian-root.js';
import { typed } from './document.js';
import type { MadePackage } from './package.js';
import type { Answer } from './place.js';
import { fixture, scratchDir } from './stage.js';
import { messageOf } from './until.js';

/** Debian 12, whose Podman brings Buildah in it. With runc: crun refuses machines that have both versions of control groups. */
const ENGINE: RootRecipe = { suite: 'bookworm', packages: ['podman', 'runc', 'util-linux'] };

/** Where the checkout of the documents is: `docker/` in it, and the folders of `folder`. */
const CHECKOUT = '/opt/checkout';
const ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/home' };
const BASE = 'localhost/base';
const IMAGE = 'localhost/freezer';

/** Podman in a Debian root of its own, with storage in memory: when that container ends, nothing is left but empty control groups. */
export class Podman {
  /** The name of the image on which others are built here. */
  static readonly BASE = BASE;
  readonly #cgroup: string;
  #terminals = 0;

  private constructor(
    private readonly container: Container,
    private readonly context: string,
  ) {
    this.#cgroup = basename(context);
  }

  /** Podman with a base image made of a Debian root, and a first container run; or why that cannot be had on this machine. */
  static async start(): Promise<Podman | string> {
    if (!canMakeRoots) return 'only as root on Debian with mmdebstrap';
    const context = mkdtempSync(join(scratchDir(), 'docker-'));
    let podman: Podman | undefined;
    try {
      const mounts = { [CHECKOUT]: context, '/opt/fixtures': fixture('.'), '/opt/base': await olderRoot() };
      podman = new Podman(await Container.start(ENGINE, { mounts, hidden: [], engine: true }), context);
      const script = 'tar -C /opt/base --one-file-system -c . | "$@"';
      // A base may have a user of its own: that one is not who runs in our image.
      const user = ['--change', `USER ${USER_ID}`];
      await podman.succeeds(['sh', '-c', script, 'sh', ...podman.#words('import', ...user, '-', BASE)]);
      await podman.#makeDocker();
      await podman.succeeds(podman.#run(['--rm', '--network', 'none', BASE, 'true']));
      return podman;
    } catch (error) {
      await podman?.stop();
      rmSync(context, { recursive: true, force: true });
      return messageOf(error);
    }
  }

  /** Builds the image, by the command of docker/README.md. Returns what was printed. */
  async build(made: MadePackage): Promise<string> {
    this.folder('docker', made);
    for (const name of ['Dockerfile', 'freezer', 'sample']) {
      copyFileSync(join(process.cwd(), 'docker', name), join(this.context, 'docker', name));
    }
    return await this.type(typed('docker/README.md', 'docker build'), `--build-arg BASE=${BASE}`);
  }

  /** A folder of the checkout, with the extracted package in it and these files, which can be executed. Returns its path inside. */
  folder(name: string, made?: MadePackage, files: Readonly<Record<string, string>> = {}): string {
    const path = join(this.context, name);
    mkdirSync(path);
    if (made !== undefined) execFileSync('cp', ['-al', made.extracted, join(path, 'fastfreeze')]);
    for (const [file, content] of Object.entries(files)) writeFileSync(join(path, file), content, { mode: 0o755 });
    return `${CHECKOUT}/${name}`;
  }

  /** Lines as a user types them in the checkout, whose `docker` gets further options; they must succeed. Returns what they printed. */
  async type(lines: string, options = ''): Promise<string> {
    return await this.succeeds(['env', `OPTIONS=${options}`, ...this.#typing(lines)]);
  }

  /** The same, in the foreground. */
  start(lines: string): Running {
    return this.container.start(this.#typing(lines), ENVIRONMENT);
  }

  /** `podman run` of the built image, in the foreground. Volumes have to be in the engine's own /tmp. */
  run(options: readonly string[], words: readonly string[]): Running {
    return this.container.start(this.#run(this.#options(options, words)), ENVIRONMENT);
  }

  /** The same on a terminal, which gets its keys by `type`: what it shows is the output. */
  async runOnTerminal(options: readonly string[], words: readonly string[]): Promise<OnTerminal> {
    return await this.typeOnTerminal(this.#run(this.#options(['-it', ...options], words)).join(' '));
  }

  /** A line as a user types it on a terminal. */
  async typeOnTerminal(line: string): Promise<OnTerminal> {
    const fifo = `/tmp/keys-${++this.#terminals}`;
    await this.succeeds(['mkfifo', fifo]);
    // Open for reading too: the terminal must not end between two keys.
    const script = 'exec script --quiet --return --command "$2" /dev/null <>"$1"';
    const running = this.container.start(['sh', '-c', script, 'sh', fifo, line], ENVIRONMENT);
    const type = async (keys: string): Promise<void> => {
      await this.succeeds(['sh', '-c', 'printf %s "$1" >"$2"', 'sh', keys, fifo]);
    };
    return { ...running, type };
  }

  #options(options: readonly string[], words: readonly string[]): string[] {
    return ['--rm', '--volume', '/opt/fixtures:/fixtures:ro', ...options, IMAGE, ...words];
  }

  /** Any other command of Podman's. */
  async command(...words: string[]): Promise<Answer> {
    return await this.exec(this.#words(...words));
  }

  /** A command beside the containers. */
  async exec(words: readonly string[]): Promise<Answer> {
    return await this.container.exec(words, ENVIRONMENT);
  }

  /** The same; throws what was said when it fails. */
  async succeeds(words: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.exec(words);
    if (code !== 0) throw new Error(`${words.join(' ')} ended with ${code}:\n${stderr}`);
    return stdout + stderr;
  }

  /** Ends everything. Returns what is left of it on the machine: nothing. */
  async stop(): Promise<string> {
    await this.container.stop();
    rmSync(this.context, { recursive: true, force: true });
    const find = ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*/${this.#cgroup}*`];
    spawnSync('find', [...find, '-exec', 'rmdir', '{}', ';']);
    return spawnSync('find', find, { encoding: 'utf8' }).stdout;
  }

  #run(words: readonly string[]): string[] {
    return this.#words('run', '--cgroup-parent', `/${this.#cgroup}`, ...words);
  }

  #typing(lines: string): string[] {
    return ['sh', '-euc', `cd ${CHECKOUT}\n${lines}`];
  }

  /** `docker`, which is Podman without a network. */
  async #makeDocker(): Promise<void> {
    const groups = `--network none --cgroup-parent /${this.#cgroup}`;
    const script = `#!/bin/sh
command=$1
shift
case $command in
  # Buildah runs in that group itself, which must have none below it then.
  build) set -- ${groups}/build --layers=false "$@" ;;
  run) set -- ${groups} "$@" ;;
esac
exec ${this.#words().join(' ')} $command \${OPTIONS:-} "$@"
`;
    await this.succeeds(['sh', '-c', 'printf %s "$1" >"$2" && chmod +x "$2"', 'sh', script, '/usr/local/bin/docker']);
    // For names without a registry, which are looked up there.
    await this.succeeds(['mount', '-t', 'tmpfs', 'tmpfs', '/var/cache']);
  }

  #words(...words: string[]): string[] {
    const storage = ['--root', '/var/tmp/storage', '--runroot', '/run/podman'];
    const engine = ['--runtime', 'runc', '--cgroup-manager', 'cgroupfs', '--events-backend', 'none'];
    return ['podman', ...storage, ...engine, ...words];
  }
}

export type OnTerminal = Running & { type(keys: string): Promise<void> };

async function olderRoot(): Promise<string> {
  return await debianRoot(await olderRecipe());
}
