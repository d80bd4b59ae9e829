// SPDX-License-Identifier: Apache-2.0
// Appends one line of JSON per jest run to $FF_TEST_COUNTS; closing-line.mjs adds them up.
import { appendFileSync } from 'node:fs';

class CountReporter {
  onRunComplete(_contexts, results) {
    const file = process.env.FF_TEST_COUNTS;
    if (file === undefined) return;
    const skippedNames = results.testResults.flatMap((suite) =>
      suite.testResults
        .filter((test) => ['pending', 'skipped', 'todo', 'disabled'].includes(test.status))
        .map((test) => test.fullName),
    );
    // A suite that could not even be loaded has no tests of its own: count it as one failure.
    const counts = {
      passed: results.numPassedTests,
      failed: results.numFailedTests + results.numRuntimeErrorTestSuites,
      skipped: results.numPendingTests + results.numTodoTests,
      skippedNames,
    };
    appendFileSync(file, `${JSON.stringify(counts)}\n`);
  }
}

export { CountReporter as default };
