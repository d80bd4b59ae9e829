// SPDX-License-Identifier: Apache-2.0
import { connect } from 'node:net';
import { join } from 'node:path';
import { FastFreezeError, fromErrorRecord, hasErrno } from '../base/errors.js';
import { after } from '../base/timers.js';
import { withSocketPath } from '../linux/unix-socket.js';
import type { CheckpointRequest, CheckpointResult, JobStatus, Progress } from './config.js';
import { type ControlReply, type ControlRequest, lineSplitter } from './control-protocol.js';
import { ASSUMED_PACE } from './pace.js';
import { findJob, readToken } from './state.js';

/**
 * Ask a running job for a checkpoint. Ending this process before it is committed calls it off. With `untilExit` the job, when it
 * ends, waits a moment for this process to end first: where both are in one container it would be killed with it, and not tell
 * its caller how the checkpoint went.
 */
export async function requestCheckpoint(
  name: string | undefined,
  request: CheckpointRequest,
  progress: (p: Progress) => void,
  { untilExit = false }: { readonly untilExit?: boolean } = {},
): Promise<CheckpointResult> {
  const job = findJob(name);
  const reply = await call(job, { op: 'checkpoint', request }, progress, undefined, untilExit);
  if (reply.type !== 'checkpoint') throw strange(job.name);
  return { ...OLDER_RESULT, ...reply.result };
}

/** Wait until the job neither checkpoints nor restores. */
export async function waitIdle(name: string | undefined, timeoutMs: number | undefined): Promise<void> {
  const job = findJob(name);
  const reply = await call(job, { op: 'wait' }, () => undefined, timeoutMs);
  if (reply.type !== 'idle') throw strange(job.name);
}

export async function readStatus(name: string | undefined): Promise<JobStatus> {
  const job = findJob(name);
  const reply = await call(job, { op: 'status' }, () => undefined, STATUS_TIMEOUT_MS);
  if (reply.type !== 'status') throw strange(job.name);
  return { ...OLDER_STATUS, ...reply.status };
}

/** What a job that was started before an update of this program does not tell. */
const OLDER_RESULT: Pick<CheckpointResult, 'shards' | 'advice' | 'carried' | 'pace'> = {
  shards: [],
  advice: [],
  carried: null,
  pace: ASSUMED_PACE,
};
const OLDER_STATUS: Pick<JobStatus, 'clockOffsets' | 'recordsMetrics' | 'replacedFiles' | 'pace'> = {
  clockOffsets: { monotonicSeconds: 0, boottimeSeconds: 0 },
  recordsMetrics: false,
  replacedFiles: [],
  pace: null,
};

const STATUS_TIMEOUT_MS = 10_000;
/** A job that was just started has no socket yet. */
const CONNECT_TIMEOUT_MS = 10_000;
const CONNECT_RETRY_MS = 50;

type Question = ControlRequest extends infer R ? (R extends unknown ? Omit<R, 'token'> : never) : never;

async function call(
  job: { name: string; path: string },
  question: Question,
  progress: (p: Progress) => void,
  timeoutMs: number | undefined,
  untilExit = false,
): Promise<ControlReply> {
  const deadlineMs = Date.now() + Math.min(timeoutMs ?? CONNECT_TIMEOUT_MS, CONNECT_TIMEOUT_MS);
  for (;;) {
    try {
      return await callOnce(job, { ...question, token: readToken(job.path) }, progress, timeoutMs, untilExit);
    } catch (error) {
      if (!hasErrno(error, 'ENOENT', 'ECONNREFUSED')) throw error;
      if (Date.now() > deadlineMs) {
        throw new FastFreezeError({
          code: 'not-found',
          op: 'reach the job',
          subject: job.name,
          reason: 'its supervisor does not answer',
          hint: 'fastfreeze status shows what runs',
          cause: error,
        });
      }
      await new Promise((resolve) => setTimeout(resolve, CONNECT_RETRY_MS));
    }
  }
}

async function callOnce(
  job: { name: string; path: string },
  request: ControlRequest,
  progress: (p: Progress) => void,
  timeoutMs: number | undefined,
  untilExit: boolean,
): Promise<ControlReply> {
  return await new Promise<ControlReply>((resolve, reject) => {
    const socket = withSocketPath(join(job.path, 'control.sock'), (path) => connect({ path, allowHalfOpen: true }));
    let isHeld = false;
    const stop =
      timeoutMs === undefined
        ? undefined
        : after(timeoutMs, () => {
            socket.destroy();
            reject(
              new FastFreezeError({
                code: 'aborted',
                op: 'wait for the job',
                subject: job.name,
                reason: `not done after ${timeoutMs / 1000} s`,
                hint: 'a checkpoint or restore is still in progress; wait longer with --timeout',
              }),
            );
          });
    socket.setEncoding('utf8');
    socket.once('connect', () => socket.write(`${JSON.stringify(request)}\n`));
    socket.on('error', (error) => {
      stop?.();
      reject(error);
    });
    socket.once('end', () => {
      if (!isHeld) socket.destroy();
    });
    socket.once('close', () => {
      stop?.();
      reject(
        new FastFreezeError({
          code: 'app',
          op: 'hear from the job',
          subject: job.name,
          reason: 'it ended before it answered',
        }),
      );
    });
    socket.on(
      'data',
      lineSplitter((line) => {
        const reply = JSON.parse(line) as ControlReply;
        if (reply.type === 'progress') {
          progress(reply.progress);
          return;
        }
        stop?.();
        isHeld = untilExit;
        // The kernel closes it when this process has its exit code.
        if (isHeld) socket.unref();
        else socket.destroy();
        if (reply.type === 'error') reject(fromErrorRecord(reply.error));
        else resolve(reply);
      }) as (piece: string | Buffer) => void,
    );
  });
}

function strange(name: string): FastFreezeError {
  return new FastFreezeError({
    code: 'internal',
    op: 'understand the job',
    subject: name,
    reason: 'its answer does not fit the question: it runs another version of fastfreeze',
  });
}
