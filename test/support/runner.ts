// SPDX-License-Identifier: Apache-2.0
// GitHub's runner as far as an action can tell: `dist/` and action.yml in a folder of their own, the environment, the files of commands, `::` commands,
// the ladder of signals to node alone, post steps with the saved state, orphans killed at the end. Stricter than the real one: what that would
// overlook (an unknown command, an undeclared input) throws here.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import type { Bed } from './bed.js';
import { PATH_OF_JOBS, type Place } from './place.js';
import { allPids, signalPid } from './processes.js';
import { nodePath } from './stage.js';
import { sleep, until } from './until.js';

/** As src/Runner.Sdk/ProcessInvoker.cs has them. */
const SIGINT_MS = 7_500;
const SIGTERM_MS = 2_500;
/** The worker's life after a cancellation: five minutes of the server, less 15 s of the listener. */
const WORKER_MS = 285_000;
/** A post step of a job that nobody has cancelled may take as long as it likes; here that would be a mistake. */
const POST_MS = 120_000;
/** For a process that holds our pipes after node's end. */
const PIPES_MS = 5_000;

export interface JobContext {
  readonly repository?: string;
  readonly isPrivate?: boolean;
  readonly runId?: string;
  readonly attempt?: number;
  readonly job?: string;
  readonly ref?: string;
  readonly workflowFile?: string;
  readonly matrix?: Readonly<Record<string, unknown>> | null;
  /** Of a workflow_dispatch. */
  readonly inputs?: Readonly<Record<string, string>>;
  readonly token?: string;
  readonly environment?: 'github-hosted' | 'self-hosted';
  readonly env?: Readonly<Record<string, string>>;
  /** Instead of the Node.js of the tests. */
  readonly node?: string;
  /** Words before it that change what it may do, and become it. */
  readonly within?: readonly string[];
}

interface Action {
  readonly inputs: Readonly<Record<string, { readonly default?: string; readonly required?: boolean }>>;
  readonly outputs: Readonly<Record<string, unknown>>;
  readonly runs: { readonly using: string; readonly main: string; readonly post: string };
}

export interface Annotation {
  readonly level: 'notice' | 'warning' | 'error';
  readonly title: string;
  readonly message: string;
}

/** One run of one job on a machine whose workspace is new. */
export class RunnerJob {
  readonly workspace: string;
  readonly temp: string;
  readonly trackingId = `github_${randomUUID()}`;
  readonly #folder: string;
  readonly #action: Action;
  readonly #steps: RunnerStep[] = [];
  #cancelledAtMs: number | undefined;
  #isDown = false;
  status: 'success' | 'failure' | 'cancelled' = 'success';

  constructor(
    readonly bed: Bed,
    readonly place: Place,
    readonly context: JobContext = {},
  ) {
    const work = bed.path('runner');
    this.workspace = join(work, 'repo', 'repo');
    this.temp = join(work, '_temp');
    // Nothing of the run before is there.
    rmSync(work, { recursive: true, force: true });
    for (const path of [work, join(work, 'repo'), this.workspace, this.temp, join(work, '_tool')]) {
      mkdirSync(path);
      bed.give(path);
    }
    this.#folder = bed.path('action');
    if (!existsSync(this.#folder)) {
      mkdirSync(this.#folder);
      for (const name of ['dist', 'action.yml']) cpSync(name, join(this.#folder, name), { recursive: true });
    }
    this.#action = parse(readFileSync(join(this.#folder, 'action.yml'), 'utf8')) as Action;
  }

  /** `uses:` with `with:`; `env` is the step's own. */
  step(given: Readonly<Record<string, string>>, env: Readonly<Record<string, string>> = {}): RunnerStep {
    const declared = Object.keys(this.#action.inputs);
    const unknown = Object.keys(given).filter((name) => !declared.includes(name));
    if (unknown.length > 0) throw new Error(`Unexpected input(s): ${unknown.join(', ')}`);
    const number = this.#steps.length + 1;
    const step = new RunnerStep(this, number, { given, env });
    this.#steps.push(step);
    step.startStage(join(this.#folder, this.#action.runs.main), this.environment(step));
    return step;
  }

  /** Somebody cancels the run: the step that runs gets the ladder; then `finish` runs the post steps. */
  async cancel(step: RunnerStep): Promise<void> {
    this.#cancelledAtMs = Date.now();
    this.status = 'cancelled';
    await step.interrupt();
  }

  /** The step's own `timeout-minutes` are over. */
  async timeOut(step: RunnerStep): Promise<void> {
    this.status = 'failure';
    await step.interrupt();
  }

  /** The machine is told to go: main has only just handed over when the runner's processes are ended, and no post steps come. */
  async shutDown(step: RunnerStep): Promise<void> {
    this.#isDown = true;
    this.status = 'failure';
    step.signal('SIGINT');
    await step.logs(/SIGINT: the command is being frozen/);
    step.signal('SIGKILL');
    this.killOrphans();
  }

  /** Post steps, the last first, which must end with that code; then what still has our mark is killed, and the folder for temporary files emptied. */
  async finish(postCode = 0): Promise<void> {
    if (!this.#isDown) {
      for (const step of [...this.#steps].reverse()) {
        const leftMs = this.#cancelledAtMs === undefined ? POST_MS : this.#cancelledAtMs + WORKER_MS - Date.now();
        step.startStage(join(this.#folder, this.#action.runs.post), this.environment(step));
        const code = await step.ends(leftMs);
        if (code !== postCode) throw new Error(`the post step ended with ${code}, not ${postCode}:\n${step.log}`);
      }
    }
    this.killOrphans();
    for (const name of readdirSync(this.temp))
      rmSync(join(this.temp, name), { recursive: true, force: true, maxRetries: 3 });
  }

  killOrphans(): void {
    for (const pid of allPids()) {
      try {
        if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`RUNNER_TRACKING_ID=${this.trackingId}\0`))
          continue;
      } catch {
        continue; // It has ended.
      }
      signalPid(pid, 'SIGKILL');
    }
  }

  environment(step: RunnerStep): Record<string, string> {
    const { context } = this;
    const repository = context.repository ?? 'ann/research';
    const ref = context.ref ?? 'refs/heads/main';
    const [owner = ''] = repository.split('/');
    const event = step.file('event.json');
    writeFileSync(
      event,
      JSON.stringify({
        ref,
        repository: { full_name: repository, private: context.isPrivate ?? true },
        ...(context.inputs === undefined ? {} : { inputs: context.inputs }),
      }),
    );
    const inputs = Object.entries(this.#action.inputs).map(([name, { default: value = '' }]) => {
      const text = step.with[name] ?? this.#evaluate(value);
      return [`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`, text] as const;
    });
    return {
      ...context.env,
      ...step.env,
      CI: 'true',
      GITHUB_ACTIONS: 'true',
      GITHUB_ACTION: step.number === 1 ? '__fastfreeze_action' : `__fastfreeze_action_${step.number}`,
      GITHUB_ACTION_REPOSITORY: 'fastfreeze/action',
      GITHUB_ACTION_REF: 'v1',
      GITHUB_EVENT_NAME: context.inputs === undefined ? 'push' : 'workflow_dispatch',
      GITHUB_EVENT_PATH: event,
      GITHUB_JOB: context.job ?? 'train',
      GITHUB_REF: ref,
      GITHUB_REPOSITORY: repository,
      GITHUB_REPOSITORY_OWNER: owner,
      GITHUB_RUN_ATTEMPT: String(context.attempt ?? 1),
      GITHUB_RUN_ID: context.runId ?? '7000000001',
      GITHUB_SERVER_URL: 'https://github.com',
      GITHUB_SHA: '1'.repeat(40),
      GITHUB_WORKFLOW: 'train',
      GITHUB_WORKFLOW_REF: `${repository}/.github/workflows/${context.workflowFile ?? 'train.yml'}@${ref}`,
      GITHUB_WORKSPACE: this.workspace,
      ...step.commandFiles(),
      RUNNER_ARCH: 'X64',
      RUNNER_ENVIRONMENT: context.environment ?? 'self-hosted',
      RUNNER_OS: 'Linux',
      RUNNER_TEMP: this.temp,
      RUNNER_TOOL_CACHE: join(this.temp, '..', '_tool'),
      RUNNER_TRACKING_ID: this.trackingId,
      ACTIONS_RUNTIME_TOKEN: context.env?.['ACTIONS_RUNTIME_TOKEN'] ?? RUNTIME_TOKEN,
      ...Object.fromEntries(inputs),
      ...Object.fromEntries([...step.state].map(([name, value]) => [`STATE_${name}`, value])),
    };
  }

  /** Only what an input's default may be. */
  #evaluate(text: string): string {
    return text.replace(/\$\{\{\s*(.*?)\s*\}\}/g, (_, expression: string): string => {
      switch (expression) {
        case 'github.token':
          return this.context.token ?? JOB_TOKEN;
        case 'toJSON(matrix)':
          return JSON.stringify(this.context.matrix ?? null, undefined, 2);
        case 'job.status':
          return this.status;
        default:
          throw new Error(`an expression that no input's default may have, or that is not known here: ${expression}`);
      }
    });
  }
}

/** What must be nowhere but in the action's own environment. */
export const RUNTIME_TOKEN = `runtime-${randomBytes(12).toString('hex')}`;
export const JOB_TOKEN = `ghs_${randomBytes(12).toString('hex')}`;

const FILES = ['OUTPUT', 'ENV', 'PATH', 'STEP_SUMMARY', 'STATE'] as const;

/** A step: first its main stage, then its post stage. */
export class RunnerStep {
  readonly with: Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, string>>;
  readonly state = new Map<string, string>();
  readonly outputs = new Map<string, string>();
  readonly summaries: string[] = [];
  readonly annotations: Annotation[] = [];
  /** Titles of what the log can be folded to. */
  readonly groups: string[] = [];
  readonly #masks: string[] = [];
  #stage = 0;
  #child: ChildProcess | undefined;
  #log = '';
  #open = 0;
  #end: { readonly code: number; readonly signal: NodeJS.Signals | null } | undefined;
  #piped = true;

  constructor(
    readonly job: RunnerJob,
    readonly number: number,
    options: { readonly given: Readonly<Record<string, string>>; readonly env: Readonly<Record<string, string>> },
  ) {
    this.with = options.given;
    this.env = options.env;
  }

  /** All that both stages have written, secrets masked as the runner masks them. */
  get log(): string {
    return this.#masks.reduce((text, mask) => text.replaceAll(mask, '***'), this.#log);
  }

  /** As it was written, but for the lines that tell the runner what to mask. */
  get unmasked(): string {
    return this.#log.replace(/^::add-mask::.*$/gm, '');
  }

  /** Lines of a fixture that counts, in order. */
  get counted(): string {
    return this.#log
      .split('\n')
      .filter((line) => /^\d+ (?:shell|done)$/.test(line))
      .map((line) => `${line}\n`)
      .join('');
  }

  file(name: string): string {
    const path = join(this.job.temp, `step-${this.number}-${this.#stage}-${name}`);
    if (existsSync(path)) return path;
    writeFileSync(path, '');
    this.job.bed.give(path);
    return path;
  }

  commandFiles(): Record<string, string> {
    return Object.fromEntries(FILES.map((name) => [`GITHUB_${name}`, this.file(name)]));
  }

  startStage(script: string, env: Record<string, string>): void {
    const { within = [], node = nodePath() } = this.job.context;
    const words = this.job.place.command([...within, node, script], env);
    const [program = '', ...rest] = words;
    const child = spawn(program, rest, {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: this.job.workspace,
      env: { PATH: PATH_OF_JOBS },
    });
    this.#child = child;
    this.#end = undefined;
    this.#piped = true;
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (this.#log += text));
    child.once('exit', (code, signal) => {
      this.#end = { code: code ?? 128 + (signal === null ? 0 : constants.signals[signal]), signal };
    });
    child.once('close', () => (this.#piped = false));
  }

  /** Waits for the stage's end, and reads what it has told the runner. Resolves to its exit code. */
  async ends(timeoutMs = 90_000): Promise<number> {
    const detail = (): string => this.log;
    const { code } = await until('the step to end', () => this.#end, timeoutMs, detail);
    await until('the step to let go of its output', () => !this.#piped, PIPES_MS, detail);
    if (this.#stage === 0 && code !== 0 && this.job.status === 'success') this.job.status = 'failure';
    this.#readCommands();
    for (const [name, value] of readPairs(this.file('STATE'))) this.state.set(name, value);
    for (const [name, value] of readPairs(this.file('OUTPUT'))) this.outputs.set(name, value);
    // Set too late for any step to see: the real runner drops them.
    if (this.#stage === 1 && readPairs(this.file('OUTPUT')).size > 0)
      throw new Error('outputs are set in the post step');
    this.summaries.push(readFileSync(this.file('STEP_SUMMARY'), 'utf8'));
    this.#stage += 1;
    return code;
  }

  /** What later steps would have in their environment. */
  exported(): Map<string, string> {
    return readPairs(join(this.job.temp, `step-${this.number}-0-ENV`));
  }

  async logs(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray> {
    return await until(
      `${String(pattern)} in the log`,
      () => {
        const found = pattern.exec(this.#log);
        if (found !== null) return found;
        if (this.#end !== undefined && !this.#piped)
          throw new Error(`the step ended before ${String(pattern)}:\n${this.log}`);
        return undefined;
      },
      timeoutMs,
      () => this.log,
    );
  }

  /** Waits until the fixture has counted on. */
  async counts(more = 3): Promise<void> {
    const from = this.counted.length;
    const enough = (): boolean => this.counted.slice(from).split('\n').length > more;
    await until('the command to count', enough, undefined, () => this.log);
  }

  /** The ladder, to node alone. */
  async interrupt(): Promise<void> {
    this.signal('SIGINT');
    if (await this.#goes(SIGINT_MS)) return;
    this.signal('SIGTERM');
    if (await this.#goes(SIGTERM_MS)) return;
    this.signal('SIGKILL');
    throw new Error(`main lived for 10 s after SIGINT and was killed:\n${this.log}`);
  }

  async #goes(waitMs: number): Promise<boolean> {
    const endMs = Date.now() + waitMs;
    while (this.#end === undefined && Date.now() < endMs) await sleep(20);
    return this.#end !== undefined;
  }

  signal(name: NodeJS.Signals): void {
    signalPid(this.#child?.pid ?? 0, name);
  }

  #readCommands(): void {
    this.annotations.length = this.#stage === 0 ? 0 : this.annotations.length;
    const lines = this.#log.slice(this.#open).split('\n');
    this.#open = this.#log.length;
    let groups = 0;
    for (const line of lines) {
      if (!line.startsWith('::')) continue;
      const [, name = '', properties = '', message = ''] = /^::([a-z-]+)(?: ([^:]*))?::(.*)$/.exec(line) ?? [];
      switch (name) {
        case 'group':
          if (++groups > 1) throw new Error(`a group in a group, which the runner does not show: ${line}`);
          this.groups.push(message);
          break;
        case 'endgroup':
          if (--groups < 0) throw new Error('a group is ended that was not begun');
          break;
        case 'add-mask':
          this.#masks.push(unescape(message));
          break;
        case 'notice':
        case 'warning':
        case 'error':
          this.annotations.push({ level: name, title: property(properties, 'title'), message: unescape(message) });
          break;
        case 'debug':
          break;
        default:
          throw new Error(`not a command of the runner's: ${line}`);
      }
    }
    if (groups !== 0) throw new Error('a group is not ended');
  }
}

function property(list: string, name: string): string {
  const pair = list.split(',').find((one) => one.startsWith(`${name}=`));
  return unescape(pair?.slice(name.length + 1) ?? '')
    .replaceAll('%3A', ':')
    .replaceAll('%2C', ',');
}

function unescape(text: string): string {
  return text.replaceAll('%0D', '\r').replaceAll('%0A', '\n').replaceAll('%25', '%');
}

/** `name=value`, or `name<<DELIMITER`, lines, `DELIMITER`. */
function readPairs(path: string): Map<string, string> {
  const pairs = new Map<string, string>();
  if (!existsSync(path)) return pairs;
  const lines = readFileSync(path, 'utf8').split('\n');
  while (lines.length > 0) {
    const line = lines.shift() ?? '';
    if (line === '') continue;
    const [, name = '', mark = '', rest = ''] = /^([^=<]+)(=|<<)(.*)$/.exec(line) ?? [];
    if (mark === '') throw new Error(`Invalid format '${line}'`);
    if (mark === '=') {
      pairs.set(name, rest);
      continue;
    }
    const end = lines.indexOf(rest);
    if (end < 0) throw new Error(`Invalid value. Matching delimiter not found '${rest}'`);
    pairs.set(name, lines.splice(0, end).join('\n'));
    lines.shift();
  }
  return pairs;
}

/** Directories of ours that a command of this bed was to have; empty when all is cleared up. */
export function commandDirectories(bed: Bed): string[] {
  return readdirSync('/tmp')
    .filter((name) => name.startsWith('fastfreeze-action-'))
    .map((name) => join('/tmp', name))
    .filter((path) => {
      const scripts = readdirSync(path).filter((name) => name.startsWith('script-'));
      return scripts.some((name) => readFileSync(join(path, name), 'utf8').includes(bed.dir));
    });
}
