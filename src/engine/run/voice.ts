// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '../../base/log.js';
import type { Metrics } from '../metrics/metrics.js';
import type { RunHooks } from './options.js';

/** What all of a run shares. */
export interface Voice {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly startedAtMs: number;
  readonly hooks: RunHooks;
}
