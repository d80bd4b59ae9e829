// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  DescribeJobsRequest$,
  DescribeJobsResponse$,
  type EvaluateOnExit,
  type JobDetail,
  type KeyValuePair,
  type RegisterJobDefinitionRequest,
  RegisterJobDefinitionRequest$,
  type SubmitJobRequest,
  SubmitJobRequest$,
} from '@aws-sdk/client-batch';
import { misfits } from './sdk-model.js';

/** One run of a container, as a host of the service starts it. */
export interface Attempt {
  readonly jobId: string;
  /** From 1. */
  readonly number: number;
  readonly image: string;
  /** For the image's ENTRYPOINT. */
  readonly words: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** How it ended: with an exit code, or because its host was gone. */
export type AttemptEnd = number | 'host lost';

const EXITED = 'Essential container in task exited';
const ARN = 'arn:aws:batch:eu-central-1:123456789012';

/**
 * AWS Batch: its API as far as fastfreeze, its users and the SDK speak it, and what the service then does with a job.
 * Requests are held to the SDK's own model; what does not fit is answered with 400 and kept in `violations`.
 */
export class AwsBatchFake {
  readonly violations: string[] = [];
  /** Names of operations, in their order. */
  readonly asked: string[] = [];
  /** Answered with AccessDeniedException, as without the permission. */
  denied: readonly string[] = [];
  readonly #definitions = new Map<string, RegisterJobDefinitionRequest>();
  readonly #jobs = new Map<string, JobDetail>();
  readonly #runs: Promise<void>[] = [];
  #halted = false;

  private constructor(
    private readonly server: Server,
    private readonly runAttempt: (attempt: Attempt) => Promise<AttemptEnd>,
  ) {}

  static async start(runAttempt: (attempt: Attempt) => Promise<AttemptEnd>): Promise<AwsBatchFake> {
    const server = createServer();
    const fake = new AwsBatchFake(server, runAttempt);
    server.on('request', (request, response) => void fake.#serve(request, response));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  job(jobId: string): JobDetail {
    const job = this.#jobs.get(jobId);
    if (job === undefined) throw new Error(`there is no job ${jobId}`);
    return job;
  }

  /** Those that were submitted, in that order; children of arrays are among them. */
  get jobs(): JobDetail[] {
    return [...this.#jobs.values()];
  }

  /** As TerminateJob: whoever runs the attempt still has to be told. */
  terminate(jobId: string): void {
    this.job(jobId).isTerminated = true;
  }

  /** No attempt is started any more. */
  halt(): void {
    this.#halted = true;
  }

  /** Waits for the attempts. Throws what did not fit, and why an attempt could not be run. */
  async stop(): Promise<void> {
    this.halt();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
    await Promise.all(this.#runs);
    if (this.violations.length > 0) throw new Error(`AWS Batch was asked wrongly:\n${this.violations.join('\n')}`);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = '';
    for await (const piece of request) body += String(piece);
    const [status, answer] = this.#answer(request, body);
    const error = status === 200 ? {} : { 'x-amzn-errortype': String(answer['__type']) };
    response.writeHead(status, { 'content-type': 'application/json', ...error }).end(JSON.stringify(answer));
  }

  #answer({ method = '', url = '', headers }: IncomingMessage, body: string): [number, Record<string, unknown>] {
    const refuse = (what: string): [number, Record<string, unknown>] => {
      this.violations.push(`${method} ${url}: ${what}`);
      return [400, { __type: 'ClientException', message: what }];
    };
    const signed = /^AWS4-HMAC-SHA256 Credential=[^/]+\/\d{8}\/[^/]+\/batch\/aws4_request, /u;
    if (headers['user-agent'] !== STAND_IN && !signed.test(headers.authorization ?? '')) return refuse('not signed');
    const operation = /^\/v1\/(registerjobdefinition|submitjob|describejobs)$/u.exec(url)?.[1];
    if (method !== 'POST' || operation === undefined) return refuse('no such operation');
    this.asked.push(operation);
    if (this.denied.includes(operation)) {
      return [403, { __type: 'AccessDeniedException', message: `not authorized to perform: batch:${operation}` }];
    }
    try {
      const input: unknown = JSON.parse(body);
      if (operation === 'describejobs')
        return [200, this.#describe(fitting(DescribeJobsRequest$, input) as { jobs: string[] })];
      if (operation === 'submitjob') return [200, this.#submit(fitting(SubmitJobRequest$, input) as SubmitJobRequest)];
      return [200, this.#register(fitting(RegisterJobDefinitionRequest$, input) as RegisterJobDefinitionRequest)];
    } catch (error) {
      return refuse(String(error));
    }
  }

  #register(given: RegisterJobDefinitionRequest): Record<string, unknown> {
    const { jobDefinitionName = '' } = given;
    this.#definitions.set(jobDefinitionName, given);
    return { jobDefinitionName, jobDefinitionArn: `${ARN}:job-definition/${jobDefinitionName}:1`, revision: 1 };
  }

  #describe({ jobs }: { readonly jobs: readonly string[] }): Record<string, unknown> {
    const found = { jobs: jobs.flatMap((id) => this.#jobs.get(id) ?? []) };
    // What we say is held to the same model.
    return fitting(DescribeJobsResponse$, found) as Record<string, unknown>;
  }

  #submit(request: SubmitJobRequest): Record<string, unknown> {
    const { jobDefinition = '', jobName = '', arrayProperties } = request;
    const name = /([^/:]+)(?::\d+)?$/u.exec(jobDefinition)?.[1] ?? '';
    const definition = this.#definitions.get(name);
    if (definition === undefined) throw new Error(`there is no definition ${jobDefinition}`);
    if (request.jobQueue === undefined) throw new Error('no queue');
    const jobId = randomUUID();
    const { size } = arrayProperties ?? {};
    if (size !== undefined && !(size >= 2 && size <= 10_000)) throw new Error(`an array of ${size}`);
    const indices = size === undefined ? [undefined] : Array.from({ length: size }, (_, i) => i);
    for (const index of indices) {
      const id = index === undefined ? jobId : `${jobId}:${index}`;
      const job = newJob(id, definition, request, index);
      this.#jobs.set(id, job);
      this.#runs.push(this.#run(job, arrayVariables(index, size)));
    }
    return { jobId, jobName, jobArn: `${ARN}:job/${jobId}` };
  }

  /** The life of a job: one attempt after the other, as long as its strategy says so. */
  async #run(job: JobDetail, more: Readonly<Record<string, string>>): Promise<void> {
    const { attempts = 1, evaluateOnExit = [] } = job.retryStrategy ?? {};
    for (let number = 1; ; number += 1) {
      job.status = 'RUNNING';
      const environment = job.container?.environment ?? [];
      const given = environment.map(({ name = '', value = '' }): [string, string] => [name, value]);
      const end = await this.runAttempt({
        jobId: job.jobId ?? '',
        number,
        image: job.container?.image ?? '',
        words: job.container?.command ?? [],
        env: {
          ...Object.fromEntries(given),
          AWS_BATCH_JOB_ID: job.jobId ?? '',
          AWS_BATCH_JOB_ATTEMPT: String(number),
          AWS_BATCH_JQ_NAME: 'spot',
          AWS_BATCH_CE_NAME: 'spot',
          AWS_EXECUTION_ENV: 'AWS_ECS_EC2',
          ...more,
        },
      });
      job.status = end === 0 ? 'SUCCEEDED' : 'FAILED';
      if (end === 0 || this.#halted || job.isTerminated === true || number >= attempts) return;
      if (actionOf(evaluateOnExit, end) === 'EXIT') return;
      job.status = 'RUNNABLE';
    }
  }
}

/** What the stand-in for the `aws` command calls itself: it has no keys to sign with. */
export const STAND_IN = 'stand-in-for-aws';

/** What the service does after an attempt: the first rule that fits, and another attempt where none does. */
export function actionOf(rules: readonly EvaluateOnExit[], end: AttemptEnd): 'RETRY' | 'EXIT' {
  const [exitCode, statusReason] =
    end === 'host lost' ? ['', 'Host EC2 (instance i-0abc) terminated.'] : [String(end), EXITED];
  const fits = (pattern: string | undefined, value: string): boolean =>
    pattern === undefined || (pattern.endsWith('*') ? value.startsWith(pattern.slice(0, -1)) : value === pattern);
  const rule = rules.find(
    (one) => fits(one.onExitCode, exitCode) && fits(one.onStatusReason, statusReason) && fits(one.onReason, ''),
  );
  return rule?.action ?? 'RETRY';
}

function newJob(
  jobId: string,
  definition: RegisterJobDefinitionRequest,
  request: SubmitJobRequest,
  index: number | undefined,
): JobDetail {
  const { containerProperties: container = {}, timeout, retryStrategy, tags, propagateTags } = definition;
  const { containerOverrides: over = {} } = request;
  for (const { name = '' } of over.environment ?? []) {
    if (name.startsWith('AWS_BATCH_')) throw new Error(`${name} is reserved`);
  }
  return {
    jobId,
    jobName: request.jobName,
    jobQueue: `${ARN}:job-queue/${request.jobQueue ?? ''}`.replace(/^.*:job-queue\/arn:/u, 'arn:'),
    jobDefinition: `${ARN}:job-definition/${definition.jobDefinitionName ?? ''}:1`,
    status: 'SUBMITTED',
    startedAt: Date.now(),
    parameters: request.parameters ?? {},
    retryStrategy: request.retryStrategy ?? retryStrategy,
    timeout: request.timeout ?? timeout,
    tags: { ...tags, ...request.tags },
    propagateTags: request.propagateTags ?? propagateTags ?? false,
    isCancelled: false,
    isTerminated: false,
    ...(index === undefined ? {} : { arrayProperties: { index } }),
    container: {
      image: container.image,
      command: over.command ?? container.command,
      privileged: container.privileged,
      jobRoleArn: container.jobRoleArn,
      resourceRequirements: over.resourceRequirements ?? container.resourceRequirements,
      environment: merged(container.environment ?? [], over.environment ?? []),
    },
  };
}

function merged(pairs: readonly KeyValuePair[], over: readonly KeyValuePair[]): KeyValuePair[] {
  return [...pairs.filter(({ name }) => !over.some((one) => one.name === name)), ...over];
}

function arrayVariables(index: number | undefined, size: number | undefined): Record<string, string> {
  return index === undefined
    ? {}
    : { AWS_BATCH_JOB_ARRAY_INDEX: String(index), AWS_BATCH_JOB_ARRAY_SIZE: String(size) };
}

/** As a program would send it, if the model says that it may. */
function fitting(schema: Parameters<typeof misfits>[0], value: unknown): unknown {
  const plain: unknown = JSON.parse(JSON.stringify(value));
  const wrong = misfits(schema, plain);
  if (wrong.length > 0) throw new Error(wrong.join(', '));
  return plain;
}
