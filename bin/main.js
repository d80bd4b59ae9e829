// SPDX-License-Identifier: Apache-2.0
import { main } from '../lib/cli/main.js';

// exitCode, not exit(): what was written to a pipe must still leave.
process.exitCode = await main(process.argv.slice(2));
// A step that was given up half-way (a request that hangs) must not keep us.
setTimeout(() => process.exit(), 3000).unref();
