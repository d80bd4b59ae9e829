// SPDX-License-Identifier: Apache-2.0
import type { EngineEvent } from './engine-task.js';

export interface Story {
  readonly jobId: string;
  readonly imageUrl: string;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly events: readonly EngineEvent[];
  /** Why it ended, and what happens next: a sentence each. */
  readonly why: string;
  readonly next: string;
}

/** The job summary, as Markdown. */
export function summaryText(story: Story): string {
  const { events } = story;
  const rows = checkpointRows(events);
  return [
    '### fastfreeze',
    '',
    `**${escape(story.why)}** ${escape(story.next)}`,
    '',
    '```mermaid',
    ...timeline(story),
    '```',
    '',
    ...(rows.length === 0
      ? ['No checkpoint was made.']
      : [
          '| checkpoint | why | image | stored | ratio | frozen | durable after | rate |',
          '|---:|---|---:|---:|---:|---:|---:|---:|',
          ...rows,
        ]),
    '',
    `Job \`${story.jobId}\`, image at \`${story.imageUrl}\``,
    '',
  ].join('\n');
}

function checkpointRows(events: readonly EngineEvent[]): string[] {
  let why = '';
  return events.flatMap((event) => {
    if (event.type === 'asked') why = event.source;
    if (event.type === 'checkpoint-failed')
      return [`| failed | ${escape(why)}: ${escape(event.message)} | | | | | | |`];
    if (event.type !== 'checkpoint') return [];
    const { generation, rawBytes, storedBytes, frozenMs, durableMs } = event;
    const ratio = storedBytes === 0 ? '' : (rawBytes / storedBytes).toFixed(1);
    const rate = durableMs === 0 ? '' : `${mib(rawBytes / (durableMs / 1000))}/s`;
    const cells = [
      generation,
      escape(why),
      mib(rawBytes),
      mib(storedBytes),
      ratio,
      seconds(frozenMs),
      seconds(durableMs),
      rate,
    ];
    return [`| ${cells.join(' | ')} |`];
  });
}

/** A Gantt chart in milliseconds since the epoch. */
function timeline({ startedAtMs, endedAtMs, events }: Story): string[] {
  const lines = ['gantt', '  dateFormat x', '  axisFormat %H:%M:%S', '  section step'];
  const bar = (name: string, kind: string, fromMs: number, toMs: number): void => {
    // Mermaid draws nothing of no length.
    lines.push(`  ${name} :${kind}${fromMs}, ${Math.max(toMs, fromMs + 1)}`);
  };
  const ready = events.find((event) => event.type === 'ready');
  if (ready === undefined) {
    bar('set-up', '', startedAtMs, endedAtMs);
    return lines;
  }
  bar(
    ready.restoredGeneration === null ? 'set-up' : `restore of ${ready.restoredGeneration}`,
    '',
    startedAtMs,
    ready.atMs,
  );
  const last = events.findLast((event) => event.type === 'checkpoint');
  const end = events.find((event) => event.type === 'ended');
  const isStopped = events.findLast((event) => event.type === 'asked')?.leavesRunning === false;
  const runsUntilMs = isStopped && last !== undefined ? last.atMs - last.durableMs : (end?.atMs ?? endedAtMs);
  bar('command', 'active, ', ready.atMs, runsUntilMs);
  for (const event of events) {
    if (event.type === 'checkpoint')
      bar(`checkpoint ${event.generation}`, 'crit, ', event.atMs - event.durableMs, event.atMs);
  }
  return lines;
}

function mib(bytes: number): string {
  return `${(bytes / 1_048_576).toFixed(1)} MiB`;
}

function seconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(2)} s`;
}

function escape(text: string): string {
  return text.replace(/[|<>\n]/g, ' ');
}
