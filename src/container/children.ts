// SPDX-License-Identifier: Apache-2.0
import type { ChildProcess } from 'node:child_process';
import { type ExitStatus, peekEndedChild, reap } from '../linux/process.js';
import { type TreeProcess, ownChildren, readProcess } from './tree.js';

/**
 * Children of PID 1. Node reaps what it spawned; everything else (the restored application, orphans that the
 * application's own subreaper left behind) is ours to reap, and a blanket wait would steal Node's.
 */
export interface Children {
  /** Leave this child to Node. */
  adopt(child: ChildProcess): void;
  /** Wait for a process that Node did not spawn, such as a restored application. */
  waitFor(pid: number): Promise<ExitStatus>;
  /** Live children of ours that are neither Node's nor the application: orphans that left the application's tree. */
  strangers(appPid: number): TreeProcess[];
  close(): void;
}

/** A zombie that Node is about to reap hides the ones behind it; look again this soon. */
const RETRY_MS = 5;
/** SIGCHLD can be lost between two looks of ours only by a bug; this bounds what it would cost. */
const SWEEP_MS = 1_000;

export function createChildren(): Children {
  const nodes = new Set<number>();
  const awaited = new Map<number, (status: ExitStatus) => void>();
  const ended = new Map<number, ExitStatus>();
  let retry: NodeJS.Timeout | undefined;

  const sweep = (): void => {
    for (;;) {
      const pid = peekEndedChild();
      if (pid === undefined) return;
      if (nodes.has(pid)) {
        retry ??= setTimeout(() => {
          retry = undefined;
          sweep();
        }, RETRY_MS);
        return;
      }
      const status = reap(pid);
      if (status === 'running' || status === 'gone') return;
      const tell = awaited.get(pid);
      awaited.delete(pid);
      if (tell === undefined) ended.set(pid, status);
      else tell(status);
    }
  };

  const onChild = (): void => sweep();
  process.on('SIGCHLD', onChild);
  const timer = setInterval(sweep, SWEEP_MS);

  return {
    adopt(child) {
      const { pid } = child;
      if (pid === undefined) return;
      nodes.add(pid);
      child.once('exit', () => {
        nodes.delete(pid);
        sweep();
      });
    },
    waitFor: (pid) =>
      new Promise<ExitStatus>((resolve) => {
        const known = ended.get(pid);
        if (known !== undefined) resolve(known);
        else {
          awaited.set(pid, resolve);
          sweep();
        }
      }),
    strangers: (appPid) =>
      ownChildren()
        .filter((pid) => pid !== appPid && !nodes.has(pid))
        .flatMap((pid) => readProcess(pid) ?? [])
        .filter((one) => one.state !== 'Z'),
    close() {
      process.off('SIGCHLD', onChild);
      clearInterval(timer);
      clearTimeout(retry);
    },
  };
}
