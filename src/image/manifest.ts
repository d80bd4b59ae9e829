// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { FastFreezeError } from '../base/errors.js';
import { type ImageKeys, type KeyDerivation, missingPassphrase } from './keys.js';
import type { Cipher, Codec } from './layout.js';
import { readManifestFields } from './manifest-fields.js';

export interface ObjectRecord {
  readonly name: string;
  readonly sizeBytes: number;
}

/** What the writer of an image hands over: all that is needed to find it again and to know it whole. */
export interface SealedImage {
  readonly prefix: string;
  readonly codec: Codec;
  readonly cipher: Cipher;
  /** With a cipher only. */
  readonly encryption?: EncryptionRecord;
  /** The generation whose chunks are used again, which is the one right before; null when none are. */
  readonly baseGeneration: number | null;
  /** Every shard that the index points into, its own and those of earlier images. */
  readonly shards: readonly ObjectRecord[];
  readonly index: ObjectRecord & { readonly sha256: string };
  /** Bytes of all files together. */
  readonly rawBytes: number;
  /** Bytes that this image added to the store. */
  readonly storedBytes: number;
  readonly files: number;
  readonly chunks: number;
}

export interface EncryptionRecord extends KeyDerivation {
  /** Authenticates the whole manifest, by a key that only the passphrase gives. */
  readonly seal: string;
}

export interface WriterRecord {
  readonly version: string;
  readonly host: string;
  readonly kernel: string;
  readonly criu: string;
}

export interface FinishedRecord {
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** Tells commands apart without showing them; earlier versions do not say. */
  readonly commandSha256?: string;
}

export interface Manifest {
  readonly format: 'fastfreeze-image';
  readonly formatVersion: 1;
  readonly generation: number;
  readonly state: 'checkpoint' | 'finished';
  readonly createdAt: string;
  readonly writer: WriterRecord;
  /** With `checkpoint` only. */
  readonly image?: SealedImage;
  /** With `finished` only. */
  readonly finished?: FinishedRecord;
  /** The engine's own record, which it checks itself. */
  readonly app?: unknown;
  /** SHA-256 of the manifest's bytes up to the checksum. */
  readonly checksum: string;
}

export type ManifestFields = Omit<Manifest, 'format' | 'formatVersion' | 'checksum'>;

export interface ParseOptions {
  /** What the bytes are called in messages. */
  readonly subject: string;
  /** Try to read a manifest whose format version is not this program's. */
  readonly allowBadVersion?: boolean;
}

export const MAX_MANIFEST_BYTES = 16 * 2 ** 20;
const FORMAT = 'fastfreeze-image';
const FORMAT_VERSION = 1;
const OLDER_HINT = 'use an older generation (--generation N), if one was kept; fastfreeze list shows them';

/** A manifest with its checksum, sealed by the keys of its image. Throws `internal` on fields that `parseManifest` would refuse. */
export function buildManifest(fields: ManifestFields, keys?: ImageKeys): Manifest {
  const checked = readManifestFields(
    JSON.parse(`${bodyOf(withSeal(fields, keys === undefined ? undefined : NO_SEAL))}}`) as unknown,
    (reason) => new FastFreezeError({ code: 'internal', op: 'write the manifest', reason }),
  );
  const sealed = withSeal(checked, keys?.sealOf(bodyOf(checked)));
  return { format: FORMAT, formatVersion: FORMAT_VERSION, ...sealed, checksum: digest(bodyOf(sealed)) };
}

/** The bytes to store. */
export function serializeManifest(manifest: Manifest): Buffer {
  return Buffer.from(`${bodyOf(manifest)}${tailOf(manifest.checksum)}`, 'utf8');
}

/**
 * Whether the image was written by somebody who knows the passphrase, and the manifest as it is now. Throws `key` where the
 * passphrase is missing, `image` where the manifest was changed, or keys are given for an image that is not encrypted.
 */
export function checkSeal(manifest: Manifest, keys: ImageKeys | undefined, subject: string): void {
  const encryption = manifest.image?.encryption;
  if (manifest.image === undefined || (encryption === undefined && keys === undefined)) return;
  if (keys === undefined) throw missingPassphrase(subject);
  if (encryption !== undefined && keys.sealOf(bodyOf(withSeal(manifest, NO_SEAL))) === encryption.seal) return;
  throw new FastFreezeError({
    code: 'image',
    op: 'read',
    subject,
    reason: 'it was changed by somebody who does not know the passphrase',
    hint: OLDER_HINT,
  });
}

/** Stands for the seal while it is computed. */
const NO_SEAL = '0'.repeat(64);

function withSeal(fields: ManifestFields, seal: string | undefined): ManifestFields {
  const { image } = fields;
  if (image?.encryption === undefined || seal === undefined) return fields;
  return { ...fields, image: { ...image, encryption: { ...image.encryption, seal } } };
}

/** Every byte and every field checked; what is wrong is told apart in the message. */
export function parseManifest(bytes: Uint8Array, options: ParseOptions): Manifest {
  const refuse = (reason: string, hint = OLDER_HINT): FastFreezeError =>
    new FastFreezeError({ code: 'image', op: 'read the manifest', subject: options.subject, reason, hint });

  const parsed = parseObject(bytes);
  if (parsed === undefined) throw refuse('it is cut short or damaged (no JSON object)');
  const body = bytes.subarray(0, Math.max(0, bytes.length - TAIL_BYTES));
  const [, checksum] = TAIL.exec(Buffer.from(bytes.subarray(body.length)).toString('latin1')) ?? [];
  if (checksum !== undefined && digest(body) !== checksum) {
    throw refuse('its checksum does not match: it is damaged or was edited');
  }
  if (parsed['format'] !== FORMAT) {
    throw refuse(
      'it is not a manifest of this program: another tool wrote it',
      'give a URL that nothing else uses; nothing was changed there',
    );
  }
  if (parsed['formatVersion'] !== FORMAT_VERSION && options.allowBadVersion !== true) {
    const version = JSON.stringify(parsed['formatVersion'] ?? null);
    throw refuse(
      `it has format version ${version}, this program reads ${FORMAT_VERSION}`,
      'use the version of fastfreeze that wrote it, or --no-restore to start over',
    );
  }
  if (checksum === undefined) throw refuse('it has no checksum at its end: it is cut short or was edited');
  return { format: FORMAT, formatVersion: FORMAT_VERSION, ...readManifestFields(parsed, refuse), checksum };
}

// The checksum stands last and covers every byte before it, so that no byte of the object is free to change.
const TAIL = /^,\n {2}"checksum": "([0-9a-f]{64})"\n\}\n$/;
const TAIL_BYTES = tailOf('0'.repeat(64)).length;

function tailOf(checksum: string): string {
  return `,\n  "checksum": "${checksum}"\n}\n`;
}

/** The JSON text up to the checksum. */
function bodyOf(fields: ManifestFields): string {
  const { generation, state, createdAt, writer, image, finished, app } = fields;
  const all = {
    format: FORMAT,
    formatVersion: FORMAT_VERSION,
    generation,
    state,
    createdAt,
    writer,
    image,
    finished,
    app,
  };
  return JSON.stringify(all, null, 2).slice(0, -'\n}'.length);
}

function digest(body: string | Uint8Array): string {
  return createHash('sha256').update(body).digest('hex');
}

function parseObject(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
