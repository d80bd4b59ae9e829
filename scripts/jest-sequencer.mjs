// SPDX-License-Identifier: Apache-2.0
// The longest suites first: one that is begun last keeps one worker busy alone.
import { basename } from 'node:path';

/** By what they take at full length (docs/testing.md, "Campaigns") or, where that is the same, in `npm test`; the longest first. */
const LONGEST = [
  'kills',
  'net-faults-gs',
  'generations-root-first',
  'generations-root-second',
  'net-faults-s3',
  'generations-user-first',
  'generations-user-second',
  'jobs',
  'slurm',
  's3-jobs',
  'lease',
  'store-faults',
  'store-swift',
  'stdio',
  'bad-input',
  'install',
  'docker',
  'package',
  'corruption',
];

class LongestFirst {
  sort(tests) {
    return [...tests].sort((one, other) => rank(one.path) - rank(other.path) || (one.path < other.path ? -1 : 1));
  }

  /** What jest would remember of a run: the order does not depend on earlier ones. */
  cacheResults() {
    return undefined;
  }
}

export { LongestFirst as default };

function rank(path) {
  const found = LONGEST.indexOf(basename(path, '.test.js'));
  return found < 0 ? LONGEST.length : found;
}
