// SPDX-License-Identifier: Apache-2.0
/* Entry of the step. */
import { tellFailure } from './failure.js';
import { platformProblem } from './platform.js';

const problem = platformProblem();
process.exitCode = problem === undefined ? await (await import('./main-step.js')).runMain() : tellFailure(problem);
// Whatever a request that was given up still holds open: the step is over.
setTimeout(() => process.exit(), 1_000).unref();
