// SPDX-License-Identifier: Apache-2.0
import { main } from '../lib/cli/main.js';

// exitCode, not exit(): what was written to a pipe must still leave.
process.exitCode = await main(process.argv.slice(2));
