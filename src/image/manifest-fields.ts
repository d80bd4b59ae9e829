// SPDX-License-Identifier: Apache-2.0
import type { FastFreezeError } from '../base/errors.js';
import { CIPHERS, CODECS } from './layout.js';
import type {
  EncryptionRecord,
  FinishedRecord,
  ManifestFields,
  ObjectRecord,
  SealedImage,
  WriterRecord,
} from './manifest.js';
import { indexName, isPrefix, parseShardName } from './names.js';

/** The fields of a manifest, each checked for what its type promises. Fields that are not known are left out. */
export function readManifestFields(value: unknown, refuse: (reason: string) => FastFreezeError): ManifestFields {
  const manifest = new Fields(value, '', refuse);
  const state = manifest.oneOf('state', ['checkpoint', 'finished'] as const);
  const generation = manifest.count('generation', 1);
  const present = (name: string): boolean => manifest.raw(name) !== undefined;
  if (present('image') !== (state === 'checkpoint'))
    throw manifest.wrong('image', `not be missing or extra in a ${state}`);
  if (present('finished') !== (state === 'finished'))
    throw manifest.wrong('finished', `not be missing or extra in a ${state}`);
  return {
    generation,
    state,
    createdAt: manifest.date('createdAt'),
    writer: readWriter(manifest.object('writer')),
    ...(state === 'checkpoint' ? { image: readImage(manifest.object('image'), generation) } : {}),
    ...(state === 'finished' ? { finished: readFinished(manifest.object('finished')) } : {}),
    ...(present('app') ? { app: manifest.raw('app') } : {}),
  };
}

function readWriter(writer: Fields): WriterRecord {
  return {
    version: writer.text('version'),
    host: writer.text('host'),
    kernel: writer.text('kernel'),
    criu: writer.text('criu'),
  };
}

function readFinished(finished: Fields): FinishedRecord {
  const exitCode = finished.raw('exitCode') === null ? null : finished.count('exitCode', 0, 255);
  const signal = finished.raw('signal') === null ? null : finished.text('signal');
  if ((exitCode === null) === (signal === null)) throw finished.wrong('signal', 'stand for exactly one way to end');
  if (finished.raw('commandSha256') === undefined) return { exitCode, signal };
  const commandSha256 = finished.text('commandSha256');
  if (!/^[0-9a-f]{64}$/.test(commandSha256)) throw finished.wrong('commandSha256', 'be a SHA-256');
  return { exitCode, signal, commandSha256 };
}

function readImage(image: Fields, generation: number): SealedImage {
  const prefix = image.text('prefix');
  if (!isPrefix(prefix)) throw image.wrong('prefix', 'be the prefix of object names');
  const shards = image.list('shards').map(readObject);
  const names = new Set<string>();
  for (const { name } of shards) {
    if (parseShardName(name) === undefined || names.has(name)) throw image.wrong('shards', 'name each shard once');
    names.add(name);
  }
  const index = image.object('index');
  const record = { ...readObject(index), sha256: index.text('sha256') };
  if (!/^[0-9a-f]{64}$/.test(record.sha256)) throw index.wrong('sha256', 'be 64 hexadecimal digits');
  if (record.name !== indexName(prefix)) throw index.wrong('name', 'belong to the prefix');
  const baseGeneration = image.raw('baseGeneration') === null ? null : image.count('baseGeneration', 1);
  const borrows = shards.some((shard) => parseShardName(shard.name)?.prefix !== prefix);
  // Pruning may remove what the newest manifest does not name: borrowing from any other generation could lose data.
  if (baseGeneration === null ? borrows : baseGeneration !== generation - 1) {
    throw image.wrong('baseGeneration', 'be the generation right before when shards of earlier images are used');
  }
  const cipher = image.oneOf('cipher', CIPHERS);
  return {
    prefix,
    codec: image.oneOf('codec', CODECS),
    cipher,
    ...(cipher === 'none' ? {} : { encryption: readEncryption(image.object('encryption')) }),
    baseGeneration,
    shards,
    index: record,
    rawBytes: image.count('rawBytes', 0),
    storedBytes: image.count('storedBytes', 0),
    files: image.count('files', 0),
    chunks: image.count('chunks', 0),
  };
}

function readEncryption(encryption: Fields): EncryptionRecord {
  const hex = (name: string, bytes: number): string => {
    const text = encryption.text(name);
    if (!new RegExp(`^[0-9a-f]{${2 * bytes}}$`, 'u').test(text)) {
      throw encryption.wrong(name, `be ${2 * bytes} hexadecimal digits`);
    }
    return text;
  };
  const n = encryption.count('n', 2, 2 ** 24);
  if (!Number.isInteger(Math.log2(n))) throw encryption.wrong('n', 'be a power of two');
  return {
    name: encryption.oneOf('name', ['scrypt'] as const),
    n,
    r: encryption.count('r', 1, 64),
    p: encryption.count('p', 1, 64),
    salt: hex('salt', 16),
    check: hex('check', 16),
    seal: hex('seal', 32),
  };
}

function readObject(object: Fields): ObjectRecord {
  return { name: object.text('name'), sizeBytes: object.count('sizeBytes', 0) };
}

/** One JSON object and where it stands, for messages that name the field. */
class Fields {
  private readonly values: Readonly<Record<string, unknown>>;

  constructor(
    value: unknown,
    private readonly path: string,
    private readonly refuse: (reason: string) => FastFreezeError,
  ) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw refuse(`${path === '' ? 'it' : `its field ${path}`} must be an object`);
    }
    this.values = value as Record<string, unknown>;
  }

  raw(name: string): unknown {
    return Object.hasOwn(this.values, name) ? this.values[name] : undefined;
  }

  wrong(name: string, rule: string): FastFreezeError {
    const path = this.path === '' ? name : `${this.path}.${name}`;
    return this.refuse(`its field ${path} must ${rule}`);
  }

  text(name: string): string {
    const value = this.raw(name);
    if (typeof value !== 'string' || value.length > 1000) throw this.wrong(name, 'be a short text');
    return value;
  }

  count(name: string, least: number, most = Number.MAX_SAFE_INTEGER): number {
    const value = this.raw(name);
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most) return value;
    throw this.wrong(name, `be a whole number from ${least} to ${most}`);
  }

  date(name: string): string {
    const value = this.text(name);
    const time = Date.parse(value);
    if (Number.isNaN(time) || new Date(time).toISOString() !== value)
      throw this.wrong(name, 'be a time in ISO 8601, UTC');
    return value;
  }

  oneOf<T extends string>(name: string, allowed: readonly T[]): T {
    const value = this.raw(name);
    const found = allowed.find((candidate) => candidate === value);
    if (found === undefined) throw this.wrong(name, `be one of ${allowed.join(', ')}`);
    return found;
  }

  object(name: string): Fields {
    return new Fields(this.raw(name), this.path === '' ? name : `${this.path}.${name}`, this.refuse);
  }

  list(name: string): Fields[] {
    const value = this.raw(name);
    if (!Array.isArray(value)) throw this.wrong(name, 'be a list');
    return value.map(
      (item, i) => new Fields(item, `${this.path === '' ? '' : `${this.path}.`}${name}[${i}]`, this.refuse),
    );
  }
}
