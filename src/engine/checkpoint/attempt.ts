// SPDX-License-Identifier: Apache-2.0
import type { Children } from '../../container/children.js';
import type { OpenFile } from '../../container/open-files.js';
import type { FileHasher } from '../../container/read-files.js';
import type { AppStdio } from '../../container/stdio/app-stdio.js';
import type { ImageKeys } from '../../image/keys.js';
import type { ImageWriter } from '../../image/writer.js';
import type { Poller } from '../../linux/poller.js';
import type { FastFreezeError } from '../../base/errors.js';
import type { Logger } from '../../base/log.js';
import type { Store } from '../../store/store.js';
import type { PreservedFiles } from '../app-record.js';
import type { Carrying } from '../carry.js';
import type { CheckpointRequest, Preserve, Progress, SupervisorConfig } from '../config.js';
import type { LeaseGuard } from '../lease-guard.js';
import type { Pace } from '../pace.js';

/** What a checkpoint needs of the job. */
export interface CheckpointJob {
  readonly config: SupervisorConfig;
  readonly command: readonly string[];
  readonly appPid: number;
  readonly stdio: AppStdio;
  readonly poller: Poller;
  readonly children: Children;
  readonly log: Logger;
  readonly lease: LeaseGuard;
  /** Undefined where images are not encrypted. */
  readonly keys: ImageKeys | undefined;
  readonly fileHasher: FileHasher;
  /** Of earlier checkpoints; undefined before the first. */
  readonly pace: Pace | undefined;
  /** Every URL that images of this job have been asked for. */
  readonly destinations: readonly string[];
  /** Files to take along. */
  readonly preserve: Preserve;
  /** Told which files the application can change, and which are in the image. */
  readonly openFilesFound: (openFiles: readonly OpenFile[], files: PreservedFiles | undefined) => void;
  /** Told which objects are in the making, so that somebody can remove them if we die. */
  readonly announcePrefix: (prefix: string | null, url: string) => void;
  /** Told when a generation is durable in the spool and wants to be copied to where it belongs. */
  readonly spooled: (generation: number, url: string) => void;
  /** Told at the commit, before CRIU ends the application: its death by SIGKILL is then no accident. */
  readonly onCommitted: (stopped: boolean) => void;
  /** End whatever of the application still lives: its image is committed, and it must not run twice. */
  readonly endApplication: () => void;
}

export interface Attempt {
  readonly job: CheckpointJob;
  readonly request: CheckpointRequest;
  /** By `performance.now()`. */
  readonly requestedMs: number;
  readonly store: Store;
  readonly writer: ImageWriter;
  readonly url: string;
  readonly generation: number;
  readonly directory: string;
  readonly progress: (p: Progress) => void;
  /** Aborted when it is called off, with the FastFreezeError that says why. */
  readonly signal: AbortSignal;
  readonly callOff: (reason: FastFreezeError) => void;
  /** What passes by itself has not passed in all the attempts before. */
  readonly isLast: boolean;
  /** Undefined when files that are only read are not to be taken along. */
  readonly carrying: Carrying | undefined;
}
