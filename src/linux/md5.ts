// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import koffi from 'koffi';

/** MD5 of bytes that come one after another. */
export interface Md5 {
  /** `bytes` must stay as they are until it resolves, and no other update may be under way. */
  update(bytes: Uint8Array): Promise<void>;
  /** In Base64. Nothing may follow. */
  digest(): string;
}

/**
 * On a thread of libuv's pool, since the main thread has every upload to feed and MD5 takes two seconds a gigabyte. Where
 * Node.js does not offer its OpenSSL, on the main thread.
 */
export function createMd5(): Md5 {
  openssl ??= bind() ?? 'none';
  return openssl === 'none' ? onMainThread() : onThread(openssl);
}

let openssl: OpenSsl | 'none' | undefined;

/** `MD5_CTX` has 92 bytes, and no version has had another size. It holds no pointer: nothing is to be freed. */
const STATE_BYTES = 128;
const DIGEST_BYTES = 16;

interface OpenSsl {
  readonly init: (state: Uint8Array) => number;
  readonly update: {
    async(state: Uint8Array, bytes: Uint8Array, length: number, done: (error: unknown) => void): void;
  };
  readonly final: (into: Uint8Array, state: Uint8Array) => number;
}

function bind(): OpenSsl | undefined {
  try {
    const library = koffi.load(null);
    return {
      init: library.func('int MD5_Init(void *state)') as OpenSsl['init'],
      update: library.func(
        'int MD5_Update(void *state, const void *bytes, size_t length)',
      ) as unknown as OpenSsl['update'],
      final: library.func('int MD5_Final(void *into, void *state)') as OpenSsl['final'],
    };
  } catch {
    // A Node.js of a distribution that hides it: slower, not wrong.
    return undefined;
  }
}

function onThread({ init, update, final }: OpenSsl): Md5 {
  const state = Buffer.alloc(STATE_BYTES);
  init(state);
  return {
    update: (bytes) =>
      new Promise((resolve, reject) => {
        update.async(state, bytes, bytes.length, (error) => {
          if (error === null) resolve();
          else reject(error instanceof Error ? error : new Error('a native call failed', { cause: error }));
        });
      }),
    digest() {
      const digest = Buffer.alloc(DIGEST_BYTES);
      final(digest, state);
      return digest.toString('base64');
    },
  };
}

function onMainThread(): Md5 {
  const hash = createHash('md5');
  return {
    update: (bytes) => {
      hash.update(bytes);
      return Promise.resolve();
    },
    digest: () => hash.digest('base64'),
  };
}
