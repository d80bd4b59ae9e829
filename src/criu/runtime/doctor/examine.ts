// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../../../base/errors.js';
import type { CriuRuntime } from '../find.js';
import { findCriu } from '../find.js';
import { examineCanary } from './canary.js';
import { examineCodecs } from './codecs.js';
import { examineCpu } from './cpu.js';
import { examineKernel } from './kernel.js';
import { examineMemory } from './memory.js';
import { examineClocks, examineNamespaces, examinePidControl } from './namespaces.js';
import type { Row } from './row.js';
import { fail, ok, warn } from './row.js';
import { examinePipes, examinePtrace, examineSeccomp } from './settings.js';
import { examineStateDirectory } from './state-directory.js';
import { examineUserNamespaces } from './user-namespaces.js';
import { examineUtilLinux } from './util-linux.js';

export interface ExamineOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly privileged: boolean;
  readonly signal?: AbortSignal;
  /** Where running jobs are kept, or an error; an upper layer knows. */
  readonly stateDirectory: () => string;
  /** Told as soon as it is known, so that a slow one does not look like a hang. */
  readonly onRow: (row: Row) => void;
}

type Examination = (options: ExamineOptions) => Row | Promise<Row>;

const BEFORE_CRIU: readonly Examination[] = [
  examineKernel,
  examineUtilLinux,
  examineUserNamespaces,
  examineNamespaces,
  examinePidControl,
  examineClocks,
  examinePtrace,
  examineSeccomp,
  examinePipes,
  examineMemory,
  examineCpu,
  examineStateDirectory,
];

/** Look at everything that freezing needs, then freeze and thaw something. */
export async function examineHost(options: ExamineOptions): Promise<Row[]> {
  const rows: Row[] = [];
  const add = (row: Row): void => {
    // A step that was stopped looks like one that failed.
    options.signal?.throwIfAborted();
    rows.push(row);
    options.onRow(row);
  };
  for (const examine of BEFORE_CRIU) add(await examine(options));
  const { row, runtime } = await examineCriu(options);
  add(row);
  add(examineCodecs(options.env));
  add(await examineCanary(runtime, options));
  return rows;
}

async function examineCriu(options: ExamineOptions): Promise<{ row: Row; runtime?: CriuRuntime }> {
  try {
    const runtime = await findCriu(options);
    const where = `${runtime.version} from ${SOURCES[runtime.source]}: ${runtime.command.at(-1) ?? ''}`;
    if (runtime.warning === undefined) return { row: ok('criu', `${where}; its own check is content`), runtime };
    return { row: warn('criu', `${where}; ${runtime.warning}`, 'fastfreeze install --force'), runtime };
  } catch (error) {
    options.signal?.throwIfAborted();
    const known = asFastFreezeError(error, 'find CRIU');
    return { row: fail('criu', known.message, known.hint ?? 'fastfreeze install') };
  }
}

const SOURCES: Readonly<Record<CriuRuntime['source'], string>> = {
  FF_CRIU: '$FF_CRIU',
  package: 'this package',
  PATH: 'the system',
  installed: 'fastfreeze install',
};
