// SPDX-License-Identifier: Apache-2.0
import koffi from 'koffi';
import { SystemError } from './libc.js';

type Create = (thread: [bigint | number], attributes: null, start: unknown, argument: null) => number;
type Join = (thread: bigint | number, result: null) => number;

/** Start that many threads, one after the other, that end at once. Each takes a number of the PID namespace's. */
export function useThreads(count: number): void {
  // The whole program, since older C libraries have threads in a library of their own.
  const program = koffi.load(null);
  const create = program.func(
    'int pthread_create(_Out_ uint64_t *thread, void *attributes, void *start, void *argument)',
  ) as Create;
  const join = program.func('int pthread_join(uint64_t thread, void **result)') as Join;
  // What a thread does must be C: `free(NULL)` does nothing and returns.
  const nothing: unknown = program.symbol('free');
  for (let i = 0; i < count; i += 1) {
    const thread: [bigint | number] = [0];
    const refused = create(thread, null, nothing, null);
    if (refused !== 0) throw new SystemError('pthread_create', refused);
    join(thread[0], null);
  }
}
