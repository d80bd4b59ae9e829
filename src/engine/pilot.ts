// SPDX-License-Identifier: Apache-2.0
import type { CheckpointResult, JobStatus } from './config.js';

/** A job that runs, for whoever decides when it is frozen. Both reject once it has ended. */
export interface RunningJob {
  /** `source` is who asked, for the log. Without `leaveRunning` the job ends when the image is durable. */
  checkpoint(request: { readonly leaveRunning: boolean; readonly source: string }): Promise<CheckpointResult>;
  status(): Promise<JobStatus>;
}

/**
 * Decides when a job is frozen. It lives in the launcher, outside of the container, where schedulers and clouds can be
 * heard; what it asks for takes the same path as `fastfreeze checkpoint`.
 */
export interface Pilot {
  /** The application runs. */
  ready(job: RunningJob): void;
  /** A signal that came to the job's process; true when it was meant for the pilot, and the application must not get it. */
  signal(name: NodeJS.Signals): boolean;
  /** The job has ended; nothing of the pilot's may go on after this has resolved. */
  stop(): Promise<void>;
}
