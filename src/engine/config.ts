// SPDX-License-Identifier: Apache-2.0
import type { CriuSetup } from '../criu/options.js';
import type { ErrorRecord } from '../base/errors.js';
import type { LogFormat, Verbosity } from '../base/log.js';
import type { Lease } from '../store/lease/acquire.js';
import type { LeaseState } from '../store/lease/hold.js';
import type { LeaseHolder } from '../store/lease/record.js';
import type { KeyMaterial } from '../image/keys.js';
import type { AppEnvironment } from '../container/app-env.js';
import type { CpuRecord } from '../container/cpu-baseline.js';
import type { JobEvent, ShardTransfer } from './metrics/event.js';
import type { Pace } from './pace.js';
import type { Identity } from '../container/own-ids.js';

export type CpuBudget = 'low' | 'medium' | 'high';

/** Files that travel in the image. */
export interface Preserve {
  /** Absolute. */
  readonly paths: readonly string[];
  /** Those too that the application has open for writing. */
  readonly openFiles: boolean;
  /** Those too that it only reads: programs, libraries, data. */
  readonly mapped: boolean;
}

/** What the user asked of a job; the same for whoever starts it and whoever runs it. */
export interface JobOptions {
  readonly jobName: string;
  readonly imageUrl: string;
  /** False when the URL is the default one: then a job that ends without a checkpoint leaves nothing behind. */
  readonly imageUrlGiven: boolean;
  /** Empty to restore only. */
  readonly command: readonly string[];
  readonly allowBadImageVersion: boolean;
  readonly leaveStopped: boolean;
  /** Go on, with a warning, where the application would not continue exactly. */
  readonly allowInexact: boolean;
  /** Pairs of TCP ports: of a restored listener, and what it becomes. */
  readonly listenPorts: readonly (readonly [number, number])[];
  readonly checkpointEveryMs?: number;
  readonly checkpointOnSignals: readonly number[];
  /** Generations to keep after a checkpoint. */
  readonly keep: number;
  readonly numShards: number;
  readonly cpuBudget: CpuBudget;
  /** False to use the container that we are in. */
  readonly container: boolean;
  readonly onAppReady?: string;
  /** Where to keep the job's numbers, as OpenMetrics text. */
  readonly metricsPath?: string;
  readonly spoolDirectory?: string;
  readonly preserve: Preserve;
  /** Absolute paths below those: they do not travel, and a restore leaves them as they are. */
  readonly preserveExcept: readonly string[];
  /** Let restored files have setuid bits and capabilities because the image says so. */
  readonly preserveSetuid: boolean;
  /** The command is a script, whose shell ends in order when what it ran is killed: see `deadlySignal`. */
  readonly shellExitCodes?: boolean;
  readonly verbosity: Verbosity;
  readonly logFormat: LogFormat;
}

/** Everything the supervisor is told, as one JSON message over the channel. */
export interface SupervisorConfig extends JobOptions {
  readonly jobDirectory: string;
  /** What the application has as its TMPDIR; undefined without a container of ours, and where there is no place. */
  readonly temporaryDirectory?: string;
  /** Why there is none. */
  readonly temporaryProblem?: ErrorRecord;
  /** Files that are behind the launcher's own output: whoever called it has them, not the application. */
  readonly ownOutputs: readonly string[];
  readonly logDirectory: string;
  /** How long to stay after whoever asked for the last checkpoint has ended. */
  readonly lingerMs?: number;
  /** Generation to restore, or undefined to start from scratch. */
  readonly restoreGeneration?: number;
  readonly criu: CriuSetup;
  /** Undefined where nobody else can run this job. */
  readonly lease?: {
    readonly holder: LeaseHolder;
    readonly ttlMs: number;
    readonly strict: boolean;
    /** Undefined when it could not be taken at the start. */
    readonly lease?: Lease;
    /** Since it was written. */
    readonly ageMs: number;
  };
  /** The newest generation when the run began, where there can be no lease: then the order of commits keeps twins apart. */
  readonly knownGeneration?: number;
  /** The ids that the application has in a user namespace of ours, where they are its user's own; else it is uid 0. */
  readonly identity?: Identity;
  /** To encrypt the job's images with, and to decrypt the one to restore. */
  readonly keys?: KeyMaterial;
  readonly criuVersion: string;
  readonly outer: {
    readonly terminal: readonly [boolean, boolean, boolean];
    /** stdin is our terminal, and another job is in its foreground: what is typed there is not for us. */
    readonly background: boolean;
    /** Base64 of the settings and window size of the terminal on stdin. */
    readonly settings?: string;
    readonly windowSize?: string;
    readonly outputPath?: string;
    readonly errorPath?: string;
  };
  /** For an application that starts from scratch; a restored one has what it had. */
  readonly environment: AppEnvironment;
  /** What the application may use of the CPU; undefined for one whose image does not say. */
  readonly cpu?: CpuRecord;
  readonly openFilesLimit?: number;
  readonly ignoredSignals: readonly number[];
  readonly startedAtMs: number;
  readonly recordsMetrics: boolean;
  /** A batch system may tell the job to leave: the launcher is asked whether it has, before the application's end is recorded. */
  readonly mayBeToldToLeave: boolean;
  /** The process that `run` is, to the outside. */
  readonly launcherPid: number;
  /** The caller's UV_THREADPOOL_SIZE, which we set for ourselves and the application must get back. */
  readonly threadPoolSize?: string;
}

/** `reason` of a job that a checkpoint has stopped: the same command continues it. */
export const CHECKPOINTED = 'checkpointed';
/** `reason` of a job whose application ended because it was told to leave, before it could be frozen. */
export const INTERRUPTED = 'interrupted';

/** From the launcher to the supervisor. */
export type LauncherMessage =
  | { readonly type: 'config'; readonly config: SupervisorConfig }
  /** `ifNotReady`: it ends a run that has nothing to lose yet, and an application that runs does not get it. */
  | { readonly type: 'signal'; readonly signal: number; readonly ifNotReady?: true }
  /** A signal came that asks the job to leave; the application may have got it as well. */
  | { readonly type: 'told-to-leave' }
  /** In answer to `app-ended`. */
  | { readonly type: 'not-told-to-leave' }
  | { readonly type: 'window-size'; readonly size: string };

/** From the supervisor to the launcher. */
export type SupervisorMessage =
  | { readonly type: 'hello' }
  | { readonly type: 'ready' }
  /** Objects under this prefix are being written; null once they are committed or removed. */
  | { readonly type: 'prefix'; readonly prefix: string | null; readonly url: string }
  /** A generation is durable in the spool; what remains is to copy it. */
  | { readonly type: 'spooled'; readonly generation: number; readonly url: string }
  /** To be recorded and counted. */
  | { readonly type: 'event'; readonly event: JobEvent }
  /** The application has ended by itself: was the job told to leave? */
  | { readonly type: 'app-ended' }
  /** `killedBy`: the signal that the application, or what a script ran, died of, which is not recorded as its end. */
  | { readonly type: 'ended'; readonly exitCode: number; readonly reason: string; readonly killedBy?: string }
  | { readonly type: 'failed'; readonly exitCode: number; readonly error: ErrorRecord };

/** What `checkpoint` may ask for; everything has a default in the job's configuration. */
export interface CheckpointRequest {
  readonly imageUrl?: string;
  readonly leaveRunning: boolean;
  readonly numShards?: number;
  readonly cpuBudget?: CpuBudget;
  /** To encrypt with from now on, instead of what `run` was given. */
  readonly passphrase?: string;
  /** Files to take along from now on, beside those of before. */
  readonly preserve?: Preserve;
  /** As `allowInexact` of the job, for this one. */
  readonly allowInexact?: boolean;
  /** Options for CRIU beside those of the job, appended last. */
  readonly criuOptions?: readonly string[];
  /** Who asked, for the log. */
  readonly source: string;
}

export interface CheckpointResult {
  readonly imageUrl: string;
  readonly generation: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly frozenMs: number;
  readonly durableMs: number;
  readonly leftRunning: boolean;
  readonly shards: readonly ShardTransfer[];
  readonly encrypted: boolean;
  /** What may surprise at a restore, in words for people. */
  readonly advice: readonly string[];
  /** Files in the image; null when none were to be preserved. */
  readonly files: { readonly entries: number; readonly dataBytes: number } | null;
  /** Files in the image that the application only reads; null when they were not to be taken along. */
  readonly carried: { readonly files: number; readonly dataBytes: number } | null;
  /** How fast the job's checkpoints have been, this one included. */
  readonly pace: Pace;
}

export interface Progress {
  readonly phase: 'dump' | 'restore' | 'commit';
  readonly doneBytes: number;
  readonly storedBytes: number;
  /** An estimate; 0 when unknown. */
  readonly totalBytes: number;
  readonly elapsedMs: number;
}

export interface JobStatus {
  readonly name: string;
  readonly state: 'starting' | 'running' | 'checkpointing' | 'restoring';
  readonly imageUrl: string;
  readonly command: readonly string[];
  readonly startedAt: string;
  readonly uptimeSeconds: number;
  readonly restoredGeneration: number | null;
  /** The process that `run` is: signal this one. */
  readonly launcherPid: number;
  readonly appPid: number;
  readonly processes: readonly { readonly pid: number; readonly name: string; readonly residentBytes: number }[];
  /** Files of the image that the application sees in the place of this machine's. */
  readonly replacedFiles: readonly string[];
  readonly residentBytes: number;
  /** CPU time of its processes and of their children that have ended, on this machine; a restored one's counts its restore. */
  readonly cpuSeconds: number;
  /** What it has written to its standard output and error in this `run`. */
  readonly outputBytes: number;
  readonly lastCheckpoint: (CheckpointResult & { readonly at: string }) | null;
  readonly lastFailure: string | null;
  /** `missing` when it could not be taken; null where none is needed. */
  readonly lease: LeaseState | 'missing' | null;
  /** How far the application's monotonic and boot clocks are ahead of the machine's, in seconds; negative when behind. */
  readonly clockOffsets: { readonly monotonicSeconds: number; readonly boottimeSeconds: number };
  /** Whether `run` has a metrics recorder: it then tells of every checkpoint, whoever asked for it. */
  readonly recordsMetrics: boolean;
  /** How fast its checkpoints have been; null before the first, unless its image says. */
  readonly pace: Pace | null;
}
