// SPDX-License-Identifier: Apache-2.0
import type { App } from '../../container/app.js';
import { cpuTimeMs, readTree, residentBytes } from '../../container/tree.js';
import { readClockOffsets } from '../../linux/clocks.js';
import type { JobStatus } from '../config.js';

/** What of the status is looked up, not known. */
type Looked = 'uptimeSeconds' | 'appPid' | 'processes' | 'residentBytes' | 'cpuSeconds' | 'clockOffsets';

/** Complete what is known of a job by a look at its processes, in the moment of the question. */
export function lookAtJob(app: App | undefined, known: Omit<JobStatus, Looked>): JobStatus {
  const tree = app === undefined ? [] : readTree(app.pid);
  const processes = tree.map(({ pid, name }) => ({ pid, name, residentBytes: residentBytes(pid) }));
  return {
    ...known,
    uptimeSeconds: Math.round((Date.now() - Date.parse(known.startedAt)) / 1000),
    appPid: app?.pid ?? 0,
    processes,
    residentBytes: processes.reduce((sum, one) => sum + one.residentBytes, 0),
    cpuSeconds: tree.reduce((sum, { pid }) => sum + cpuTimeMs(pid), 0) / 1000,
    clockOffsets: clockOffsets(app),
  };
}

function clockOffsets(app: App | undefined): JobStatus['clockOffsets'] {
  const { monotonicNs, boottimeNs } = readClockOffsets(app?.pid);
  return { monotonicSeconds: Number(monotonicNs) / 1e9, boottimeSeconds: Number(boottimeNs) / 1e9 };
}
