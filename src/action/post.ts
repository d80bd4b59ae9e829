// SPDX-License-Identifier: Apache-2.0
/* Entry of what the runner runs at the end of the job. */
import { runPost } from './post-step.js';

process.exitCode = await runPost();
setTimeout(() => process.exit(), 1_000).unref();
