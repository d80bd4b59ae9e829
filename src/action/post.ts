// SPDX-License-Identifier: Apache-2.0
/* Entry of what the runner runs at the end of the job. */
import { platformProblem } from './platform.js';

// Main has said it already, and left nothing.
if (platformProblem() === undefined) process.exitCode = await (await import('./post-step.js')).runPost();
setTimeout(() => process.exit(), 1_000).unref();
