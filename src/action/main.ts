// SPDX-License-Identifier: Apache-2.0
/* Entry of the step. */
import { refusePlatform } from './platform.js';

process.exitCode = refusePlatform() ?? (await (await import('./main-step.js')).runMain());
// Whatever a request that was given up still holds open: the step is over.
setTimeout(() => process.exit(), 1_000).unref();
