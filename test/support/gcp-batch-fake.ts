// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { jobMisfits } from './proto-model.js';

/** One run of a task, as the agent on a machine starts it. */
export interface TaskRun {
  readonly job: string;
  /** From 0. */
  readonly retry: number;
  readonly run:
    | {
        readonly kind: 'container';
        readonly image: string;
        readonly words: readonly string[];
        readonly options: string;
      }
    | { readonly kind: 'script'; readonly text: string };
  readonly env: Readonly<Record<string, string>>;
}

export interface TaskState {
  readonly job: string;
  readonly index: number;
  state: 'RUNNING' | 'SUCCEEDED' | 'FAILED';
  /** Of each run. */
  readonly exitCodes: number[];
}

/** As far as is read of it. */
interface Job {
  readonly taskGroups: readonly [
    {
      readonly taskCount?: number;
      readonly taskSpec: {
        readonly runnables: readonly [Runnable];
        readonly maxRetryCount?: number;
        readonly lifecyclePolicies?: readonly [
          { readonly action: string; readonly actionCondition: { readonly exitCodes: readonly number[] } },
        ];
      };
    },
  ];
}

interface Runnable {
  readonly container?: { readonly imageUri: string; readonly commands?: readonly string[]; readonly options?: string };
  readonly script?: { readonly text: string };
  readonly environment?: { readonly variables?: Readonly<Record<string, string>> };
}

/**
 * Google Batch: CreateJob, held to the vendor's own definition of a job, and what the service then does with its tasks.
 * `runTask` resolves to the exit code that the service sees: the runnable's, or one of its own, such as 50001.
 */
export class GcpBatchFake {
  readonly tasks: TaskState[] = [];
  readonly violations: string[] = [];
  readonly #runs: Promise<void>[] = [];
  readonly #deleted = new Set<string>();
  #halted = false;

  private constructor(
    private readonly server: Server,
    private readonly runTask: (run: TaskRun) => Promise<number>,
  ) {}

  static async start(runTask: (run: TaskRun) => Promise<number>): Promise<GcpBatchFake> {
    const server = createServer();
    const fake = new GcpBatchFake(server, runTask);
    server.on('request', (request, response) => void fake.#serve(request, response));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** No run is started any more. */
  halt(): void {
    this.#halted = true;
  }

  /** A job that is deleted is not retried; whoever runs its task still has to be told. */
  delete(job: string): void {
    this.#deleted.add(job);
  }

  /** Waits for the tasks. Throws what did not fit, and why a task could not be run. */
  async stop(): Promise<void> {
    this.halt();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
    await Promise.all(this.#runs);
    if (this.violations.length > 0) throw new Error(`Google Batch was asked wrongly:\n${this.violations.join('\n')}`);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = '';
    for await (const piece of request) body += String(piece);
    const wrong = this.#create(request, body);
    this.violations.push(...wrong);
    const answer =
      wrong.length === 0 ? {} : { error: { code: 400, message: wrong.join(', '), status: 'INVALID_ARGUMENT' } };
    response.writeHead(wrong.length === 0 ? 200 : 400).end(JSON.stringify(answer));
  }

  #create({ method, url }: IncomingMessage, body: string): string[] {
    const name = /^\/v1\/projects\/[^/]+\/locations\/[^/]+\/jobs\?job_id=([a-z0-9-]+)$/u.exec(url ?? '')?.[1];
    if (method !== 'POST' || name === undefined) return [`${method ?? ''} ${url ?? ''}`];
    if (this.tasks.some(({ job }) => job === name)) return [`there is a job ${name} already`];
    const given: unknown = JSON.parse(body);
    const wrong = jobMisfits(given);
    if (wrong.length > 0) return wrong;
    const uid = `${name}-${randomUUID().slice(0, 8)}`;
    const [{ taskCount = 1, taskSpec }] = (given as Job).taskGroups;
    if ((taskSpec.maxRetryCount ?? 0) > 10) return ['maxRetryCount is above 10'];
    if ((taskSpec.lifecyclePolicies ?? []).length > 1) return ['there can be only one lifecycle policy'];
    for (let index = 0; index < taskCount; index += 1) {
      this.#runs.push(this.#run(name, { BATCH_JOB_UID: uid, BATCH_TASK_COUNT: String(taskCount) }, index, taskSpec));
    }
    return [];
  }

  async #run(
    job: string,
    given: Readonly<Record<string, string>>,
    index: number,
    { runnables: [runnable], maxRetryCount = 0, lifecyclePolicies = [] as never }: Job['taskGroups'][0]['taskSpec'],
  ): Promise<void> {
    const task: TaskState = { job, index, state: 'RUNNING', exitCodes: [] };
    this.tasks.push(task);
    const [policy] = lifecyclePolicies as readonly {
      action: string;
      actionCondition: { exitCodes: readonly number[] };
    }[];
    for (let retry = 0; ; retry += 1) {
      const code = await this.runTask({
        job,
        retry,
        run: whatToRun(runnable),
        env: {
          ...given,
          BATCH_TASK_INDEX: String(index),
          BATCH_TASK_RETRY_ATTEMPT: String(retry),
          ...runnable.environment?.variables,
        },
      });
      task.exitCodes.push(code);
      const isListed = policy?.actionCondition.exitCodes.includes(code) === true;
      // Without a policy, and for codes that none of FAIL_TASK lists, tasks are retried.
      const isRetried = policy?.action === 'RETRY_TASK' ? isListed : !isListed;
      const isOver = this.#halted || this.#deleted.has(job) || retry >= maxRetryCount;
      if (code !== 0 && isRetried && !isOver) continue;
      task.state = code === 0 ? 'SUCCEEDED' : 'FAILED';
      return;
    }
  }
}

function whatToRun({ container, script }: Runnable): TaskRun['run'] {
  if (container !== undefined) {
    const { imageUri, commands = [], options = '' } = container;
    return { kind: 'container', image: imageUri, words: commands, options };
  }
  if (script === undefined) throw new Error('a runnable that runs nothing');
  return { kind: 'script', text: script.text };
}
