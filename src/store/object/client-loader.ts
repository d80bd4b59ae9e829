// SPDX-License-Identifier: Apache-2.0
import type { ChildProcess } from 'node:child_process';
import { readGsSettings } from '../gs/gs-settings.js';
import { readS3Settings } from '../s3/s3-settings.js';
import type { BucketPlace } from './find-jobs.js';
import type { ObjectClient } from './object-client.js';
import { readRateLimit, withRateLimit } from './rate-limit.js';
import { readRetrySettings, withRetries } from './retry.js';

export interface OpenOptions {
  /** Told in one line what a store waits for when it does so for more than a few seconds. */
  readonly onWait?: (message: string) => void;
  /** Told of every process that a store starts: whoever reaps orphans must leave those to Node.js. */
  readonly adopt?: (child: ChildProcess) => void;
}

/** Loads a cloud's SDK at its call and makes a client with retries. Wrong settings are told before that: `usage`. */
export function clientLoader({ scheme, place }: BucketPlace, { onWait }: OpenOptions): () => Promise<ObjectClient> {
  const retries = { ...readRetrySettings(process.env), ...(onWait === undefined ? {} : { onWait }) };
  const rate = readRateLimit(process.env);
  if (scheme === 's3') {
    const settings = readS3Settings(process.env);
    return async () => {
      const { createS3Client } = await import('../s3/s3-client.js');
      return withRetries(withRateLimit(createS3Client(place, settings), rate), retries);
    };
  }
  const settings = readGsSettings(process.env);
  return async () => {
    const { createGsClient } = await import('../gs/gs-client.js');
    return withRetries(withRateLimit(createGsClient(place, settings), rate), retries);
  };
}
