// SPDX-License-Identifier: Apache-2.0
// Adds up what the reporter counted over several runs of jest and prints the closing line. A skipped test must be listed, with its reason,
// in test/skips.json; one that is not fails the run, and so does a run without a single test.
import { readFileSync } from 'node:fs';

const runs = readFileSync(process.argv[2], 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => JSON.parse(line));
const allowed = JSON.parse(readFileSync(new URL('../test/skips.json', import.meta.url), 'utf8'));
const sum = (key) => runs.reduce((total, run) => total + run[key], 0);

let unlisted = 0;
for (const name of runs.flatMap((run) => run.skippedNames)) {
  const reason = allowed[name];
  if (reason === undefined) unlisted += 1;
  console.log(`skipped: ${name}: ${reason ?? 'NOT LISTED in test/skips.json'}`);
}
console.log(`${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`);
process.exitCode = unlisted > 0 || sum('passed') === 0 || sum('failed') > 0 ? 1 : 0;
