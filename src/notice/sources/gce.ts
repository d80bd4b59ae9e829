// SPDX-License-Identifier: Apache-2.0
import { type Answer, ask, baseUrl } from '../http.js';
import {
  type Clock,
  type Notice,
  type NoticeSource,
  type SourceTools,
  hasEnded,
  onChange,
  pause,
  reasonOf,
} from '../notice.js';

export interface GceOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly now?: Clock;
  /** How long the service may hold a question back; it answers then that nothing has changed. */
  readonly holdMs?: number;
  readonly retryMs?: number;
}

const HOLD_MS = 60_000;
const RETRY_MS = 5_000;
/** Spot machines: the power goes 30 s after the notice, at most. */
const WINDOW_MS = 30_000;
/** Maintenance that ends a machine is told at least a minute before; an hour for those with GPUs. */
const MAINTENANCE_WINDOW_MS = 60_000;

/** Preemption of a Google Compute Engine machine: a question that is answered when it happens. */
export function gcePreemptedSource(options: GceOptions): NoticeSource {
  return longPoll(options, {
    name: 'GCE preemption',
    windowMs: WINDOW_MS,
    path: '/computeMetadata/v1/instance/preempted',
    read: (value, atMs) =>
      value === 'TRUE'
        ? {
            what: 'stop',
            deadline: { atMs, kind: 'taken-away' },
            detail: 'Google preempts this machine; it goes within 30 s',
          }
        : undefined,
  });
}

/** Maintenance that ends the machine. One that only moves it is not noticed by the application. */
export function gceMaintenanceSource(options: GceOptions): NoticeSource {
  return longPoll(options, {
    name: 'GCE maintenance',
    windowMs: MAINTENANCE_WINDOW_MS,
    path: '/computeMetadata/v1/instance/maintenance-event',
    read: (value, atMs) =>
      value.startsWith('TERMINATE')
        ? {
            what: 'stop',
            deadline: { atMs, kind: 'taken-away' },
            detail: `Google's maintenance will end this machine (${value})`,
          }
        : undefined,
  });
}

interface Watched {
  readonly name: string;
  readonly windowMs: number;
  readonly path: string;
  /** `atMs`: the machine is there until then, by what is known. */
  readonly read: (value: string, atMs: number) => Notice | undefined;
}

function longPoll(options: GceOptions, watched: Watched): NoticeSource {
  return { name: watched.name, windowMs: watched.windowMs, watch: (tools) => follow(options, watched, tools) };
}

/**
 * The first answer comes at once; later ones when the value changes, or `holdMs` have passed. Each carries an etag, so
 * that a change between two questions is not missed.
 */
async function follow(options: GceOptions, watched: Watched, tools: SourceTools): Promise<void> {
  const { env, now = Date.now, holdMs = HOLD_MS, retryMs = RETRY_MS } = options;
  const base = baseUrl(env['GCE_METADATA_HOST'] ?? 'metadata.google.internal');
  const tell = onChange(tools.problem);
  let etag = '';
  let value: string | undefined;
  while (!hasEnded(tools.signal)) {
    const wait = `wait_for_change=true&timeout_sec=${Math.ceil(holdMs / 1000)}&last_etag=${encodeURIComponent(etag)}`;
    try {
      const answer = await ask({
        url: `${base}${watched.path}${etag === '' ? '' : `?${wait}`}`,
        headers: { 'Metadata-Flavor': 'Google' },
        timeoutMs: etag === '' ? retryMs : holdMs + retryMs,
        signal: tools.signal,
      });
      if (answer.status !== 200) throw new Error(`it answered with status ${answer.status}`);
      tell(undefined);
      const body = answer.body.trim();
      // The same again is no news: the deadline counts from the first time.
      // What stands at the first look began at a time that nobody tells: nothing may be left of its window.
      if (body !== value) tools.report(watched.read(body, now() + (value === undefined ? 0 : watched.windowMs)));
      value = body;
      etag = etagOf(answer);
      if (etag === '') await pause(retryMs, tools.signal);
    } catch (error) {
      if (hasEnded(tools.signal)) return;
      tell(`Google's metadata service at ${base} is no source of notices: ${reasonOf(error)}; trying again`);
      etag = '';
      await pause(retryMs, tools.signal);
    }
  }
}

function etagOf({ headers }: Answer): string {
  const etag = headers['etag'];
  return typeof etag === 'string' ? etag : '';
}
