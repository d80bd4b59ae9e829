// SPDX-License-Identifier: Apache-2.0
/* Entry of what the runner runs at the end of the job. */
import { readHandover } from './handover.js';

// Nothing to wait for is the usual case, and the only one where main could not run: what is native is not loaded for it.
if (readHandover() !== undefined) process.exitCode = await (await import('./post-step.js')).runPost();
setTimeout(() => process.exit(), 1_000).unref();
