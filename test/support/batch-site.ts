// SPDX-License-Identifier: Apache-2.0
import { chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Bed, USER_ID } from './bed.js';
import { blocks } from './document.js';
import type { Job } from './job.js';
import { type Answer, PATH_OF_JOBS, type Place } from './place.js';
import { childrenOf, signalPid } from './processes.js';
import { fastfreeze, fixture, nodePath } from './stage.js';

/** A container's first process: PIDs of its own, and all of it ends with the engine's. */
export const CONTAINER = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child'];

/** A folder of batch-adapters/, as its README has a user work with it. */
export class Site {
  /** Where the user's shell is: a program, the Dockerfile, and whatever the commands write. */
  readonly folder: string;
  /** What a container, or a machine, has as the program's directory. */
  readonly programFolder: string;
  readonly #commands: string;
  #typed = 0;
  #places: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly bed: Bed,
    private readonly place: Place,
    private readonly adapter: string,
    private readonly env: Readonly<Record<string, string>>,
  ) {
    this.folder = bed.directory('site');
    this.programFolder = bed.directory('program');
    this.#commands = bed.directory('commands');
    this.#makeCommands();
    copyFileSync(join(process.cwd(), 'batch-adapters', adapter, 'Dockerfile'), join(this.folder, 'Dockerfile'));
    mkdirSync(join(this.folder, 'fastfreeze'));
    for (const folder of [this.folder, this.programFolder]) {
      const program = join(folder, 'solve');
      writeFileSync(
        program,
        `#!/bin/sh\nexec sh ${fixture('shell-loop.sh')} ${bed.path('stop')}-\${AWS_BATCH_JOB_ARRAY_INDEX:-0}\n`,
      );
      chmodSync(program, 0o755);
    }
    chownSync(this.folder, USER_ID, USER_ID);
  }

  /** Blocks of commands in the adapter's README. */
  get blocks(): string[] {
    return blocks(`batch-adapters/${this.adapter}/README.md`).map((lines) => lines.join('\n'));
  }

  /** Runs lines as a user's shell does; they must succeed. Returns what they printed. */
  async type(lines: string): Promise<Answer> {
    const script = this.bed.write(`typed-${++this.#typed}.sh`, `cd ${this.folder}\n${lines}`);
    const env = { ...this.env, PATH: `${this.#commands}:${PATH_OF_JOBS}` };
    const answer = await this.place.exec(['sh', '-eu', script], { env, as: 'user' });
    if (answer.code !== 0) throw new Error(`${lines}\nended with ${answer.code}:\n${answer.stderr}`);
    return answer;
  }

  /** A file that the commands wrote, and the one that comes with the adapter. */
  written(name: string): { readonly written: string; readonly delivered: string } {
    const delivered = readFileSync(join(process.cwd(), 'batch-adapters', this.adapter, name), 'utf8');
    return { written: readFileSync(join(this.folder, name), 'utf8'), delivered };
  }

  /** Starts the image's ENTRYPOINT with these words, as PID 1 of a container. */
  async startContainer(words: readonly string[], env: Readonly<Record<string, string>>): Promise<Job> {
    const dockerfile = readFileSync(join(this.folder, 'Dockerfile'), 'utf8');
    const entrypoint = JSON.parse(/^ENTRYPOINT (\[.*\])$/mu.exec(dockerfile)?.[1] ?? '') as string[];
    const program = entrypoint.map((word) => this.#here(word));
    const options = { program, within: CONTAINER, cwd: this.programFolder, env };
    return this.bed.start(await this.#newPlace(), words, options);
  }

  /** Runs a script on a machine that has fastfreeze in /opt/fastfreeze and the program in /opt/solve: those are elsewhere here. */
  async startScript(text: string, env: Readonly<Record<string, string>>): Promise<Job> {
    const script = this.bed.write(`script-${++this.#typed}`, this.#here(text));
    chmodSync(script, 0o755);
    return this.bed.start(await this.#newPlace(), [], { program: [script], env });
  }

  /** One after the other: a bed counts them. */
  async #newPlace(): Promise<Place> {
    const place = this.#places.then(() => this.bed.place());
    this.#places = place;
    return await place;
  }

  #here(text: string): string {
    const [command = ''] = fastfreeze();
    return text.replaceAll('/opt/fastfreeze/bin/fastfreeze', command).replaceAll('/opt/solve', this.programFolder);
  }

  #makeCommands(): void {
    const [command = ''] = fastfreeze();
    symlinkSync(command, join(this.#commands, 'fastfreeze'));
    for (const name of ['aws', 'docker', 'gcloud']) {
      const path = join(this.#commands, name);
      writeFileSync(path, `#!/bin/sh\nexec ${nodePath()} ${fixture(`${name}.mjs`)} "$@"\n`);
      chmodSync(path, 0o755);
    }
  }
}

/** A signal to PID 1 of a container, as an engine sends it. */
export function signalContainer(job: Job, signal: NodeJS.Signals): void {
  const [first] = childrenOf(job.pid);
  if (first === undefined) throw new Error('the container has ended');
  signalPid(first, signal);
}
