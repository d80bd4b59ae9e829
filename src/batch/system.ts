// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../base/log.js';
import type { NoticeSource } from '../notice/notice.js';

export const SYSTEM_NAMES = ['slurm', 'aws-batch', 'gcp-batch', 'kubernetes', 'none'] as const;
export type SystemName = (typeof SYSTEM_NAMES)[number];

/** Something about the set-up that a user should know. `fail`: the job cannot be run like this. */
export interface Finding {
  readonly level: 'fail' | 'warn';
  readonly what: string;
  readonly remedy: string;
}

/** What only the system itself can tell of the job. */
export interface Inspection {
  readonly findings: readonly Finding[];
  /** When it will end the job, as things are; null where it does not say. Left out where it could not be asked. */
  readonly endsAtMs?: number | null;
}

/** What a run is about, for what the system is asked and told of it. */
export interface BatchRun {
  readonly jobName: string;
  readonly imageUrl: string;
  readonly keep: number;
  readonly spoolDirectory?: string;
}

/** What an act at the end of a run has to work with. */
export interface EndTools {
  readonly run: BatchRun;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** A checkpoint has stopped the application; else it ended, or never began, because it was told to leave. */
  readonly isFrozen: boolean;
}

/** A batch system, as a job sees it from inside. */
export interface BatchSystem {
  readonly name: SystemName;
  readonly title: string;
  /** Variables that told; empty when it was chosen. */
  readonly recognisedBy: readonly string[];
  /** Names this job, and each task of an array apart; the same in all its attempts. Undefined where nothing does. */
  readonly key: string | undefined;
  /** What to do where there is none, if not the same as everywhere. */
  readonly keyRemedy?: string;
  /** Of this task in its array; undefined outside of one. */
  readonly taskIndex: string | undefined;
  /** Counted from 1; undefined where the system does not say. */
  readonly attempt: number | undefined;
  /**
   * When it will end the job, by the environment: as it was when the job began. Milliseconds since the epoch. Its `sources`
   * report that as well, until they know better.
   */
  readonly endsAtMs: number | undefined;
  /** From its SIGTERM to its SIGKILL, if nobody has changed that. */
  readonly signalWindowMs: number;
  readonly sources: readonly NoticeSource[];
  /** What makes it run the job again when it exits with `code`. */
  readonly rerun: (code: number) => string;
  readonly findings: readonly Finding[];
  /** Why this command cannot be run so that it is frozen whole; undefined where nothing is known against it. */
  readonly against?: (command: readonly string[]) => Finding | undefined;
  /** Just before the application starts. */
  readonly begin?: (run: BatchRun, log: Logger) => void;
  /** It takes time to ask. Never rejects. */
  readonly inspect?: (code: number, signal: AbortSignal) => Promise<Inspection>;
  /**
   * Whether somebody finishes an upload from a spool when the run has left; else the run waits for it, and must begin in time.
   * No, as long as the inspection has not shown it.
   */
  readonly uploadsAfterwards?: () => boolean;
  /**
   * The last act of a run that leaves with the code for "run again", where the code alone does not make the system do so.
   * The image is durable and the application gone; the system may end this process for it. Resolves to the exit code to
   * leave with. Never rejects.
   */
  readonly runAgain?: (code: number, tools: EndTools) => Promise<number>;
}

/** As a name of one folder in every kind of store. */
export function keyOf(...parts: readonly (string | undefined)[]): string {
  return parts
    .filter((part): part is string => part !== undefined && part !== '')
    .map((part) => part.replace(/[^A-Za-z0-9._-]/gu, '-'))
    .join('-');
}

/** A variable's value; undefined also where it is empty. */
export function valueOf(env: NodeJS.ProcessEnv, name: string): string | undefined {
  const value = env[name];
  return value === '' ? undefined : value;
}

/** A variable that counts; undefined where it does not. */
export function countOf(env: NodeJS.ProcessEnv, name: string): number | undefined {
  const value = valueOf(env, name);
  return value !== undefined && /^\d{1,15}$/u.test(value) ? Number(value) : undefined;
}
