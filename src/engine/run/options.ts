// SPDX-License-Identifier: Apache-2.0
import type { FastFreezeError } from '../../base/errors.js';
import type { CpuWish } from '../../container/cpu-baseline.js';
import type { JobOptions } from '../config.js';
import type { JobEvent } from '../metrics/event.js';
import type { Pilot } from '../pilot.js';

export interface RunOptions extends JobOptions {
  readonly noRestore: boolean;
  /** A job that has ended by itself in an earlier run is not started anew: its exit code is returned. */
  readonly returnFinished: boolean;
  /** A generation other than the newest. */
  readonly generation?: number;
  readonly outputPath?: string;
  readonly errorPath?: string;
  readonly passphrase?: string;
  /** What of our environment the application does not get; see `AppEnvironmentOptions`. */
  readonly scrubEnvironment: readonly string[];
  /** What an application that starts from scratch is to see of the CPU; by default all. */
  readonly cpuWish?: CpuWish;
  /** Refuse to run where clocks would jump at a restore. */
  readonly requireTimeVirtualization: boolean;
  /** The command line, for the metrics recorder. */
  readonly cliArgs: readonly string[];
  /** For how long a lease that is not renewed still keeps others out. */
  readonly leaseTtlMs: number;
  /** How long to wait for a lease that is held; twice its time to live by default. */
  readonly leaseWaitMs?: number;
  /** Stop the application while its lease may be lost, and end it when it is. */
  readonly strictLease: boolean;
  /** Take the lease from whoever has it. */
  readonly forceLease: boolean;
}

/** How `run` ended: the process's exit code, and the error to print when it was ours. */
export interface RunOutcome {
  readonly exitCode: number;
  readonly error?: FastFreezeError;
  /** How the application ended, in words; `checkpointed` when a checkpoint stopped it. */
  readonly reason?: string;
  /** The signal that the application, or with `shellExitCodes` what it ran, died of: no end of its own, and the same command continues from the last image. */
  readonly killedBy?: string;
}

/** Called once the application runs; null: from scratch, else the generation that it continues. */
export type OnReady = (restoredGeneration: number | null) => void;

/** Who takes part in a run beside us. */
export interface RunHooks {
  readonly onReady?: OnReady;
  /** Told what the supervisor tells a metrics recorder: starts, checkpoints, restores. */
  readonly onEvent?: (event: JobEvent) => void;
  readonly pilot?: Pilot;
  /** Around the application's start, or restore, its life and its end. Before and after it the job may be another run's. */
  readonly around?: (life: () => Promise<RunOutcome>) => Promise<RunOutcome>;
}
