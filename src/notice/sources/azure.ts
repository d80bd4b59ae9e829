// SPDX-License-Identifier: Apache-2.0
import { type Answer, ask, baseUrl } from '../http.js';
import { type Clock, type Notice, type NoticeSource, poll, reasonOf } from '../notice.js';

export interface AzureOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly now?: Clock;
  readonly pollMs?: number;
  readonly timeoutMs?: number;
}

const POLL_MS = 1_000;
/** The very first question enables the service for the machine, which can take minutes. */
const TIMEOUT_MS = 120_000;
/** A Spot eviction is told half a minute before, at least; other events some minutes. */
const WINDOW_MS = 30_000;
const PATH = '/metadata/scheduledevents?api-version=2020-07-01';
const NAME_PATH = '/metadata/instance/compute/name?api-version=2021-02-01&format=text';
/** The name is there at once, or not at all. */
const NAME_TIMEOUT_MS = 5_000;
/** What the application does not survive. A freeze (live migration) it does. */
const ENDING = ['Preempt', 'Terminate', 'Reboot', 'Redeploy'];

/** Scheduled events of an Azure machine: evictions of Spot machines, reboots, redeployments. */
export function azureSource(options: AzureOptions): NoticeSource {
  const { env, now = Date.now, pollMs = POLL_MS, timeoutMs = TIMEOUT_MS } = options;
  const base = baseUrl(env['FF_AZURE_METADATA_HOST'] ?? '169.254.169.254');
  return {
    name: 'Azure scheduled events',
    windowMs: WINDOW_MS - pollMs,
    watch: (tools) => {
      const get = (path: string, withinMs: number): Promise<Answer> =>
        ask({ url: `${base}${path}`, headers: { Metadata: 'true' }, timeoutMs: withinMs, signal: tools.signal });
      let name: Promise<string | undefined> | undefined;
      return poll(tools, {
        everyMs: pollMs,
        look: async () => {
          const { status, body } = await get(PATH, timeoutMs);
          if (status !== 200) throw new Error(`it answered with status ${status}`);
          // Once. Without it all events count: to leave for a neighbour's sake is better than to stay for ever.
          name ??= get(NAME_PATH, Math.min(timeoutMs, NAME_TIMEOUT_MS)).then(nameOf, () => undefined);
          tools.report(readEvents(body, now(), await name));
          return 'more';
        },
        explain: (error) =>
          `Azure's scheduled events at ${base} are no source of notices: ${reasonOf(error)}; trying again`,
      });
    },
  };
}

function nameOf({ status, body }: Answer): string | undefined {
  return status === 200 && body.trim() !== '' ? body.trim() : undefined;
}

/**
 * The soonest event that the application would not survive, of those for the machine `name`: all machines of a set are
 * told of each other's. Throws on what is no document of events.
 */
export function readEvents(body: string, nowMs: number, name?: string): Notice | undefined {
  const { Events } = JSON.parse(body) as { Events?: unknown };
  if (!Array.isArray(Events)) throw new Error('its answer has no list of events');
  let soonest: Notice | undefined;
  let soonestMs = Infinity;
  for (const event of Events as unknown[]) {
    if (typeof event !== 'object' || event === null) continue;
    const { EventType: type, NotBefore: notBefore, Resources: machines } = event as Record<string, unknown>;
    if (typeof type !== 'string' || !ENDING.includes(type) || !isFor(machines, name)) continue;
    // An event that has begun has no time any more.
    const parsed = typeof notBefore === 'string' ? Date.parse(notBefore) : NaN;
    const atMs = Number.isNaN(parsed) ? nowMs : parsed;
    if (atMs >= soonestMs) continue;
    soonestMs = atMs;
    soonest = {
      what: 'stop',
      deadline: { atMs, kind: 'taken-away' },
      // The same words at each look, that it is known for the same event.
      detail: `Azure will ${type.toLowerCase()} this machine at ${Number.isNaN(parsed) ? 'any moment' : new Date(atMs).toISOString()}`,
    };
  }
  return soonest;
}

function isFor(machines: unknown, name: string | undefined): boolean {
  if (name === undefined || !Array.isArray(machines) || machines.length === 0) return true;
  return machines.some((one) => typeof one === 'string' && one.toLowerCase() === name.toLowerCase());
}
