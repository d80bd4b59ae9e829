// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from 'node:fs';
import { generations } from './image.js';
import type { Job } from './job.js';
import { processesIn, type ProcessInfo } from './processes.js';

export const VICTIMS = ['launcher', 'supervisor', 'criu', 'client', 'helper'] as const;
export type Victim = (typeof VICTIMS)[number];

export const PHASES = ['starting', 'dumping', 'committing', 'committed', 'restoring'] as const;
export type Phase = (typeof PHASES)[number];

/** The live processes that play a part, at this instant. */
export function findVictim(victim: Victim, job: Job, clientPid: number | undefined): ProcessInfo | undefined {
  const all = processesIn(job.place.uts).filter((p) => !job.place.holders.includes(p.pid) && p.state !== 'Z');
  const isCriu = (p: ProcessInfo): boolean => /\bcriu\b.* (dump|restore)\b/.test(p.command);
  switch (victim) {
    case 'launcher':
      return all.find((p) => p.pid === job.pid);
    case 'client':
      return all.find((p) => p.pid === clientPid);
    case 'criu':
      return all.find(isCriu);
    case 'supervisor':
      return all.find((p) => isInit(p.pid));
    case 'helper':
      // What is ours and none of the above: the process that made the namespaces, one that waits, an uploader.
      return all.find(
        (p) =>
          p.pid !== job.pid &&
          p.pid !== clientPid &&
          !isInit(p.pid) &&
          !isCriu(p) &&
          /unshare|fastfreeze|\/lib\//.test(p.command) &&
          !p.command.includes('/fixtures/'),
      );
  }
}

/** PID 1 of a PID namespace of its own. */
function isInit(pid: number): boolean {
  try {
    const line = /^NSpid:\t(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]?.split('\t') ?? [];
    return line.length > 1 && line.at(-1) === '1';
  } catch {
    return false;
  }
}

/** Follows a checkpoint from outside, to say in which phase a kill fell. */
export class PhaseWatch {
  #sawCriu = false;
  readonly #before: number;

  constructor(
    private readonly job: Job,
    private readonly image: string,
  ) {
    this.#before = this.#newest();
  }

  #newest(): number {
    return existsSync(this.image) ? (generations(this.image).at(-1) ?? 0) : 0;
  }

  look(): Phase {
    if (this.#newest() > this.#before) return 'committed';
    if (findVictim('criu', this.job, undefined) !== undefined) {
      this.#sawCriu = true;
      return 'dumping';
    }
    return this.#sawCriu ? 'committing' : 'starting';
  }
}
