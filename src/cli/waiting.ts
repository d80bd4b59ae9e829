// SPDX-License-Identifier: Apache-2.0
import type { OpenOptions } from '../store/store.js';
import { plain } from './text.js';

/** Commands say what they wait for: a service that is away is asked again for minutes. */
export const sayWaiting: OpenOptions = {
  onWait: (message) => void process.stderr.write(`Waiting: ${plain(message)}\n`),
};
