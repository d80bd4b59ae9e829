// SPDX-License-Identifier: Apache-2.0
import koffi from 'koffi';
import { FastFreezeError } from '../base/errors.js';
import { nodeFile } from './node-command.js';

/** What a key is used with once, and what is authenticated beside the bytes. */
export interface AeadInput {
  /** 32 bytes. */
  readonly key: Uint8Array;
  /** 12 bytes; never twice with the same key. */
  readonly nonce: Uint8Array;
  readonly associated: Uint8Array;
}

/** AES-256-GCM in place, in memory of the caller's, on a thread of libuv's pool. */
export interface Aead {
  /** Encrypts `bytes` and writes the 16 bytes that authenticate them to `tag`. */
  seal(input: AeadInput, bytes: Uint8Array, tag: Uint8Array): Promise<void>;
  /** Decrypts `bytes`. False when they, or what is associated, are not what was sealed: then they are of no use. */
  open(input: AeadInput, bytes: Uint8Array, tag: Uint8Array): Promise<boolean>;
}

export const TAG_BYTES = 16;

/** Loaded on first use: who encrypts nothing needs none of it. */
export function loadAead(): Aead {
  aead ??= makeAead();
  return aead;
}

let aead: Aead | undefined;

type Context = bigint;
/** OpenSSL's: 1 is success. */
type Status = number;

interface UpdateCall {
  (context: Context, into: Uint8Array | null, count: Uint8Array, from: Uint8Array, length: number): Status;
  async(
    context: Context,
    into: Uint8Array,
    count: Uint8Array,
    from: Uint8Array,
    length: number,
    done: (error: unknown, status: Status) => void,
  ): void;
}

const GET_TAG = 0x10;
const SET_TAG = 0x11;

/**
 * The functions of the OpenSSL that this Node.js runs on. Node's own interface to them gives each result in new memory,
 * a mebibyte a chunk, and works on the main thread.
 */
function makeAead(): Aead {
  const bound = bind();
  const idle: Context[] = [];

  const run = async (input: AeadInput, bytes: Uint8Array, tag: Uint8Array, encrypt: 0 | 1): Promise<boolean> => {
    const context = idle.pop() ?? bound.create();
    const count = Buffer.alloc(4);
    const { key, nonce, associated } = input;
    // OpenSSL asks for no lengths, and reads on.
    if (key.length !== 32 || nonce.length !== 12 || tag.length !== TAG_BYTES) throw new Error('a wrong length');
    const must = (status: Status): void => {
      if (status !== 1) throw new Error('OpenSSL refuses AES-256-GCM');
    };
    try {
      must(bound.init(context, bound.cipher, null, key, nonce, encrypt));
      must(bound.update(context, null, count, associated, associated.length));
      must(await updateInPlace(bound.update, context, count, bytes));
      if (encrypt === 0) must(bound.control(context, SET_TAG, TAG_BYTES, tag));
      const isRight = bound.final(context, Buffer.alloc(TAG_BYTES), count) === 1;
      if (encrypt === 1) must(bound.control(context, GET_TAG, TAG_BYTES, tag));
      return isRight;
    } finally {
      idle.push(context);
    }
  };

  return {
    async seal(input, bytes, tag) {
      if (!(await run(input, bytes, tag, 1))) throw new Error('OpenSSL did not encrypt');
    },
    open: (input, bytes, tag) => run(input, bytes, tag, 0),
  };
}

function bind() {
  try {
    const openssl = koffi.load(null);
    const getCipher = openssl.func('void *EVP_aes_256_gcm()') as () => bigint;
    return {
      cipher: getCipher(),
      create: openssl.func('void *EVP_CIPHER_CTX_new()') as () => Context,
      init: openssl.func(
        'int EVP_CipherInit_ex(void *c, void *type, void *engine, const void *key, const void *nonce, int encrypt)',
      ) as (c: Context, type: bigint, engine: null, key: Uint8Array, nonce: Uint8Array, encrypt: number) => Status,
      update: openssl.func(
        'int EVP_CipherUpdate(void *c, void *into, void *count, const void *from, int length)',
      ) as unknown as UpdateCall,
      final: openssl.func('int EVP_CipherFinal_ex(void *c, void *into, void *count)') as (
        c: Context,
        into: Uint8Array,
        count: Uint8Array,
      ) => Status,
      control: openssl.func('int EVP_CIPHER_CTX_ctrl(void *c, int type, int length, void *bytes)') as (
        c: Context,
        type: number,
        length: number,
        bytes: Uint8Array,
      ) => Status,
    };
  } catch (error) {
    throw new FastFreezeError({
      code: 'host',
      op: 'encrypt with',
      subject: nodeFile(),
      reason: 'this Node.js does not offer its OpenSSL',
      hint: 'use Node.js as nodejs.org or Debian build it (FF_NODE)',
      cause: error,
    });
  }
}

function updateInPlace(update: UpdateCall, context: Context, count: Uint8Array, bytes: Uint8Array): Promise<Status> {
  return new Promise((resolve, reject) => {
    update.async(context, bytes, count, bytes, bytes.length, (error, status) => {
      if (error === null) resolve(status);
      else reject(error instanceof Error ? error : new Error('a native call failed', { cause: error }));
    });
  });
}
