// SPDX-License-Identifier: Apache-2.0
import type { SetUp } from '../batch/set-up.js';

/** Where images wait for their upload. */
export interface Spool {
  readonly directory: string;
  /** Somebody else finishes it when the job has left. */
  readonly uploadsAfterwards: boolean;
}

/** What `batch explain` prints for people. */
export function explainText(found: SetUp, spool: Spool | undefined): string {
  const { system, requeueExitCode } = found;
  const by = system.recognisedBy.length === 0 ? '' : ` (${system.recognisedBy.join(', ')})`;
  const rows: [string, string][] = [
    ['system', `${system.title}${by}`],
    ['job key', found.key ?? 'none'],
    ['image', found.imageUrl ?? 'none'],
    ...(spool === undefined ? [] : [['spool', `${spool.directory}: ${uploadText(spool)}`] as [string, string]]),
    ['attempt', system.attempt === undefined ? 'not told' : String(system.attempt)],
    ['ends at', found.endsAtMs === undefined ? 'not known' : new Date(found.endsAtMs).toISOString()],
    ...found.sources.map(({ name, windowMs }): [string, string] => [
      'notice',
      windowMs === undefined ? name : `${name}, ${windowMs / 1000} s before`,
    ]),
    ['notice', `${found.signals.join(', ') || 'no signal'}, ${found.signalWindowMs / 1000} s before`],
    ['exit code', `${requeueExitCode}: run again; else the application's own (an own ${requeueExitCode} becomes 1)`],
    ['run again', system.rerun(requeueExitCode)],
    ...found.findings.flatMap(({ level, what, remedy }): [string, string][] => [
      [level, what],
      ['', `try: ${remedy}`],
    ]),
  ];
  return rows.map(([name, text]) => `${name.padEnd(10)} ${text}\n`).join('');
}

function uploadText({ uploadsAfterwards }: Spool): string {
  return uploadsAfterwards
    ? "the node's epilog finishes the upload after the job; only the spool has to be written in time"
    : 'nobody finishes the upload after the job: it counts, and the job is frozen the earlier for it';
}

/** What it prints for programs; docs/json.md. */
export function explainJson(found: SetUp, spool: Spool | undefined): string {
  const { system } = found;
  const answer = {
    ok: !found.findings.some(({ level }) => level === 'fail'),
    system: system.name,
    recognisedBy: system.recognisedBy,
    key: found.key ?? null,
    imageUrl: found.imageUrl ?? null,
    spool: spool ?? null,
    attempt: system.attempt ?? null,
    endsAt: found.endsAtMs === undefined ? null : new Date(found.endsAtMs).toISOString(),
    notices: [
      ...found.sources.map(({ name, windowMs }) => ({ name, windowMs: windowMs ?? null })),
      ...found.signals.map((name) => ({ name, windowMs: found.signalWindowMs })),
    ],
    requeueExitCode: found.requeueExitCode,
    runAgain: system.rerun(found.requeueExitCode),
    findings: found.findings,
  };
  return `${JSON.stringify(answer)}\n`;
}
