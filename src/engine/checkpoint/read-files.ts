// SPDX-License-Identifier: Apache-2.0
import { type ReadFile, findReadFiles } from '../../container/read-files.js';
import { readOpenFiles } from '../../container/open-files.js';
import { type TreeProcess, readTree } from '../../container/tree.js';
import { realPath } from '../../files/roots.js';
import type { PreservedFiles } from '../app-record.js';
import { isPreserved } from '../preserve.js';
import type { Attempt } from './attempt.js';
import { reportProgress } from './reporter.js';

/** So that all but what has just been opened is known, or in the image, when the application waits. */
export async function readBeforeFreeze(attempt: Attempt): Promise<void> {
  const { job, carrying } = attempt;
  const tree = readTree(job.appPid);
  const written = readOpenFiles(tree, job.config.jobDirectory).map(({ path }) => path);
  const preserved = { roots: job.preserve.paths.map(realPath), except: job.config.preserveExcept.map(realPath) };
  const read = findReadFiles(tree, [job.config.jobDirectory, ...written]);
  const paths = read.filter((path) => !isPreserved(path, preserved));
  if (carrying === undefined) {
    await job.fileHasher.describe(paths);
    return;
  }
  const reporter = reportProgress(attempt, carrying.taken, performance.now());
  try {
    await carrying.take(paths);
  } finally {
    reporter.stop();
  }
}

export async function hashReadFiles(
  { job }: Attempt,
  tree: readonly TreeProcess[],
  { written, files }: { readonly written: readonly string[]; readonly files: PreservedFiles | undefined },
): Promise<ReadFile[]> {
  const read = findReadFiles(tree, [job.config.jobDirectory, ...written]);
  return await job.fileHasher.describe(read.filter((path) => !isPreserved(path, files)));
}
