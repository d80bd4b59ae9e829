// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import koffi, { type LibraryHandle } from 'koffi';
import { FastFreezeError } from '../base/errors.js';
import { chosenRoots, currentRoot, installHomes, libraryDirOf } from '../base/installation.js';

/** A compressor that writes into memory of the caller's, on a thread of libuv's pool. */
export interface Compressor {
  /**
   * Bytes written, or 0 when the result would have more than `capacity`: then the input is better stored as it is. All of
   * `into` may be written to; it must be larger than the input by `COMPRESSED_SLACK_BYTES`.
   */
  compress(from: Uint8Array, length: number, into: Uint8Array, capacity: number): Promise<number>;
}

/** By so much a megabyte of noise grows at most, in any format here. */
export const COMPRESSED_SLACK_BYTES = 512;

export interface Decompressor {
  /** Bytes written, or -1 when `from` is not a valid stream of at most `capacity` bytes. */
  decompress(from: Uint8Array, length: number, into: Uint8Array, capacity: number): Promise<number>;
}

/** xxh3-128 of the first `length` bytes, as four words, the lowest first. Off the main thread, but for `hashNow`. */
export interface Hasher {
  readonly hash: (bytes: Uint8Array, length: number, seed: bigint) => Promise<HashWords>;
  readonly hashNow: (bytes: Uint8Array, length: number, seed: bigint) => HashWords;
}

export interface HashWords {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
}

/**
 * Zstandard frames at its fastest regular level. Contexts are kept and reused: a new one costs more than a chunk. Loaded on
 * first use, as every codec: most commands need none.
 */
export function loadZstd(): Compressor & Decompressor {
  zstd ??= makeZstd();
  return zstd;
}

export function loadHasher(): Hasher {
  hasher ??= makeHasher();
  return hasher;
}

/** The first of `candidates` that loads. */
export function loadLibrary(soname: string, candidates = libraryCandidates(soname)): LibraryHandle {
  return findLibrary(soname, candidates).library;
}

/** The same, and what it was found as: a path, or the bare name where the system has it. */
export function findLibrary(soname: string, candidates: readonly string[]): { library: LibraryHandle; path: string } {
  const failures: unknown[] = [];
  for (const path of candidates) {
    try {
      return { library: koffi.load(path), path };
    } catch (error) {
      failures.push(error);
    }
  }
  throw new FastFreezeError({
    code: 'host',
    op: 'load the library',
    subject: soname,
    reason: 'neither the system nor an installed runtime has one that works here',
    // Without --force it is content with any CRIU that works, the system's too.
    hint: 'run `fastfreeze install --force`',
    cause: failures[0],
  });
}

/**
 * Where a library may be, in the order of trying: what FF_LIBRARY_DIR names, the system's own, since it is sure to fit the C
 * library this process already runs on, then those of the runtimes that CRIU itself is looked for in.
 */
export function libraryCandidates(soname: string, env: NodeJS.ProcessEnv = process.env): string[] {
  const given = env['FF_LIBRARY_DIR'];
  const roots = [...chosenRoots(env), ...installHomes(env).map(currentRoot)];
  const runtimes = roots.map((root) => resolve(libraryDirOf(root), soname));
  return [
    ...(given === undefined || given === '' ? [] : given.split(':').map((directory) => join(directory, soname))),
    soname,
    ...new Set(runtimes.filter((path) => existsSync(path))),
  ];
}

let zstd: (Compressor & Decompressor) | undefined;
let hasher: Hasher | undefined;

const ZSTD_LEVEL = 1;

/** What koffi makes of a C function. */
export interface NativeFunction<Arguments extends unknown[], Result> {
  (...args: Arguments): Result;
  async(...args: [...Arguments, (error: unknown, result: Result) => void]): void;
}

type Context = bigint;
type ContextCall<Rest extends unknown[]> = NativeFunction<
  [Context, Uint8Array, number, Uint8Array, number, ...Rest],
  number
>;

function makeZstd(): Compressor & Decompressor {
  const library = loadLibrary('libzstd.so.1');
  const createCompressor = library.func('void *ZSTD_createCCtx()') as () => Context;
  const createDecompressor = library.func('void *ZSTD_createDCtx()') as () => Context;
  const isError = library.func('uint ZSTD_isError(size_t code)') as (code: number) => number;
  const compress = library.func(
    'size_t ZSTD_compressCCtx(void *c, void *into, size_t capacity, const void *from, size_t length, int level)',
  ) as ContextCall<[number]>;
  const decompress = library.func(
    'size_t ZSTD_decompressDCtx(void *c, void *into, size_t capacity, const void *from, size_t length)',
  ) as ContextCall<[]>;
  const idleCompressors: Context[] = [];
  const idleDecompressors: Context[] = [];
  return {
    async compress(from, length, into, capacity) {
      const context = idleCompressors.pop() ?? createCompressor();
      try {
        const written = await call(compress, context, into, capacity, from, length, ZSTD_LEVEL);
        // The only failure possible here is a destination that is too small, which is how `capacity` is meant.
        return isError(written) === 0 ? written : 0;
      } finally {
        idleCompressors.push(context);
      }
    },
    async decompress(from, length, into, capacity) {
      const context = idleDecompressors.pop() ?? createDecompressor();
      try {
        const written = await call(decompress, context, into, capacity, from, length);
        return isError(written) === 0 ? written : -1;
      } finally {
        idleDecompressors.push(context);
      }
    },
  };
}

function makeHasher(): Hasher {
  const library = loadLibrary('libxxhash.so.0');
  // A 128-bit result comes back in two registers; as four words it needs no BigInt on our side.
  const words = koffi.struct({ a: 'uint32', b: 'uint32', c: 'uint32', d: 'uint32' });
  const xxh3 = fastest((name) => library.func(name, words, ['const void *', 'size_t', 'uint64'])) as NativeFunction<
    [Uint8Array, number, bigint],
    HashWords
  >;
  return {
    hash: (bytes, length, seed) => call(xxh3, bytes, length, seed),
    hashNow: (bytes, length, seed) => xxh3(bytes, length, seed),
  };
}

/** The variant that uses what this CPU has is three times as fast; not every build of the library has it. */
function fastest<F>(find: (name: string) => F): F {
  try {
    return find('XXH3_128bits_withSeed_dispatch');
  } catch {
    return find('XXH3_128bits_withSeed');
  }
}

/** On a thread of libuv's pool. */
export function call<Arguments extends unknown[], Result>(
  fn: NativeFunction<Arguments, Result>,
  ...args: Arguments
): Promise<Result> {
  return new Promise((resolve, reject) => {
    fn.async(...args, (error, result) => {
      if (error === null) resolve(result);
      else reject(error instanceof Error ? error : new Error('a native call failed', { cause: error }));
    });
  });
}
