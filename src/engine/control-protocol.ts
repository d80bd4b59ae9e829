// SPDX-License-Identifier: Apache-2.0
import type { ErrorRecord } from '../base/errors.js';
import type { CheckpointRequest, CheckpointResult, JobStatus, Progress } from './config.js';

/** One JSON message a line, both ways. The token proves that the client may read the job's directory. */
export type ControlRequest = { readonly token: string } & (
  | { readonly op: 'checkpoint'; readonly request: CheckpointRequest }
  | { readonly op: 'wait' }
  | { readonly op: 'status' }
);

export type ControlReply =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'checkpoint'; readonly result: CheckpointResult }
  | { readonly type: 'idle' }
  | { readonly type: 'status'; readonly status: JobStatus }
  | { readonly type: 'error'; readonly error: ErrorRecord };

/** Calls `line` for each whole line of a stream of text, however it is cut. */
export function lineSplitter(line: (text: string) => void): (piece: string) => void {
  let rest = '';
  return (piece) => {
    const parts = (rest + piece).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) if (part !== '') line(part);
  };
}
