// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises';
import { asFastFreezeError } from '../base/errors.js';

/** A job that has just ended fails checkpoints as well; in a moment it cannot be asked any more. */
const ENDING_MS = 1_000;

export interface LastTryOptions {
  /** Rejects when the job has ended. */
  readonly askJob: () => Promise<unknown>;
  /** The command is to end, unfrozen. */
  readonly giveUp: (failure: string) => void;
}

/**
 * Whose time is up must not be frozen again and again, and what is being written must not be cut: it may be complete in a moment. So the
 * attempt that is under way, or if none has been made yet the first, is the last.
 */
export class LastTry {
  private underWay = 0;
  private failure: string | undefined;
  private isLast = false;

  constructor(private readonly options: LastTryOptions) {}

  /** A checkpoint that is to stop the job. */
  async attempt<T>(work: () => Promise<T>): Promise<T> {
    this.underWay++;
    try {
      const done = await work();
      this.failure = undefined;
      return done;
    } catch (error) {
      this.failure = asFastFreezeError(error, 'freeze the command').message;
      throw error;
    } finally {
      this.underWay--;
      void this.look();
    }
  }

  /** The time is up. */
  begin(): void {
    this.isLast = true;
    void this.look();
  }

  private isOver(): boolean {
    return this.isLast && this.underWay === 0 && this.failure !== undefined;
  }

  private async look(): Promise<void> {
    if (!this.isOver()) return;
    await sleep(ENDING_MS);
    try {
      await this.options.askJob();
    } catch {
      return; // It is ending by itself, and what is left to do for that may be a commit.
    }
    if (this.isOver()) this.options.giveUp(this.failure ?? '');
  }
}
