// SPDX-License-Identifier: Apache-2.0
import { createHmac, hkdfSync, randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { FastFreezeError } from '../base/errors.js';
import type { AeadInput } from '../linux/aead.js';

/** How the key of an image comes from the passphrase; stands in its manifest. */
export interface KeyDerivation {
  readonly name: 'scrypt';
  /** Cost, block size and parallelism, as scrypt has them. */
  readonly n: number;
  readonly r: number;
  readonly p: number;
  /** 16 bytes in hexadecimal digits; one for all images of a job. */
  readonly salt: string;
  /** Tells a wrong passphrase from a damaged image: 16 bytes out of the key. */
  readonly check: string;
}

/** What crosses a pipe between our own processes: never an argument, an environment variable or a log line. */
export interface KeyMaterial {
  readonly derivation: KeyDerivation;
  /** 32 bytes in hexadecimal digits. */
  readonly master: string;
}

/** 32 MiB and a quarter of a second, which whoever tries passphrases pays for each. */
const COST = { n: 2 ** 15, r: 8, p: 3 } as const;
/** What a manifest may ask of us: it comes from a store, and must not be able to take all memory. */
const MAX_MEMORY_BYTES = 256 << 20;
/** Some five seconds. */
const MAX_WORK = 2 ** 24;
const SALT_BYTES = 16;
const KEY_BYTES = 32;
const CHECK_BYTES = 16;

/** The keys of one job: derived once, for all its images. */
export class ImageKeys {
  private readonly master: Buffer;
  private readonly prefixKeys = new Map<string, Buffer>();

  constructor(private readonly material: KeyMaterial) {
    this.master = Buffer.from(material.master, 'hex');
  }

  get derivation(): KeyDerivation {
    return this.material.derivation;
  }

  /**
   * For the chunk that stands at a place. A place is written once under a prefix, and a prefix once for ever, so no
   * nonce is used twice with a key, and a chunk that was moved is not authentic.
   */
  forPlace(prefix: string, shard: number, offset: number, header: Uint8Array): AeadInput {
    const nonce = Buffer.alloc(12);
    nonce.writeUInt32LE(shard, 0);
    nonce.writeBigUInt64LE(BigInt(offset), 4);
    return { key: this.keyOf(prefix), nonce, associated: Buffer.concat([header, nonce, Buffer.from(prefix)]) };
  }

  /** For the index, which stands where no chunk can: shards are counted from 1. */
  forIndex(prefix: string): AeadInput {
    return this.forPlace(prefix, 0, 0, new Uint8Array(0));
  }

  /** Authenticates a manifest: 64 hexadecimal digits. */
  sealOf(manifest: string): string {
    return createHmac('sha256', derive(this.master, 'manifest')).update(manifest).digest('hex');
  }

  private keyOf(prefix: string): Buffer {
    const known = this.prefixKeys.get(prefix) ?? derive(this.master, `chunks of ${prefix}`);
    this.prefixKeys.set(prefix, known);
    return known;
  }
}

/** For a job that has no image yet. */
export async function newKeyMaterial(passphrase: string): Promise<KeyMaterial> {
  const salt = randomBytes(SALT_BYTES);
  const master = await stretch(passphrase, salt, COST);
  const derivation = { name: 'scrypt', ...COST, salt: salt.toString('hex'), check: checkOf(master) } as const;
  return { derivation, master: master.toString('hex') };
}

/** For an image that is there. A wrong passphrase: `key`. */
export async function keyMaterialFor(
  passphrase: string,
  derivation: KeyDerivation,
  subject: string,
): Promise<KeyMaterial> {
  const { n, r, p } = derivation;
  if (128 * n * r > MAX_MEMORY_BYTES || n * r * p > MAX_WORK || n >= 2 ** (16 * r)) {
    const reason = 'the way to its key would take more memory or time than this program allows';
    throw new FastFreezeError({ code: 'image', op: 'read', subject, reason });
  }
  const master = await stretch(passphrase, Buffer.from(derivation.salt, 'hex'), derivation);
  if (!timingSafeEqual(Buffer.from(checkOf(master), 'hex'), Buffer.from(derivation.check, 'hex'))) {
    throw new FastFreezeError({
      code: 'key',
      op: 'decrypt',
      subject,
      reason: 'the passphrase is not the one that it was encrypted with',
      hint: 'give the right one with --passphrase-file',
    });
  }
  return { derivation, master: master.toString('hex') };
}

/** An encrypted image, and no passphrase. */
export function missingPassphrase(subject: string): FastFreezeError {
  return new FastFreezeError({
    code: 'key',
    op: 'decrypt',
    subject,
    reason: 'it is encrypted, and no passphrase is given',
    hint: 'give it with --passphrase-file FILE or FF_PASSPHRASE',
  });
}

function checkOf(master: Buffer): string {
  return derive(master, 'check').subarray(0, CHECK_BYTES).toString('hex');
}

function derive(master: Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', master, Buffer.alloc(0), `fastfreeze ${purpose}`, KEY_BYTES));
}

function stretch(
  passphrase: string,
  salt: Buffer,
  { n, r, p }: { readonly n: number; readonly r: number; readonly p: number },
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    // Some more than it needs: what it is exactly, is OpenSSL's affair.
    const options = { N: n, r, p, maxmem: 128 * n * r + 128 * r * p + (1 << 20) };
    scrypt(Buffer.from(passphrase, 'utf8'), salt, KEY_BYTES, options, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}
