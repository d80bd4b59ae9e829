// SPDX-License-Identifier: Apache-2.0
/* Entry of the step. */
import { runMain } from './main-step.js';

process.exitCode = await runMain();
// Whatever a request that was given up still holds open: the step is over.
setTimeout(() => process.exit(), 1_000).unref();
