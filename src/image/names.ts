// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { FastFreezeError } from '../base/errors.js';

// Every object name of an image is made and recognised here, and nowhere else.

/** A copy of the newest manifest, for people and tools. Nothing of ours trusts it. */
export const HINT_NAME = 'manifest.json';

/** A name that no other image of the job has: the time for people, the random part for uniqueness. */
export function newPrefix(now = new Date()): string {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, '');
  return `${time}-${randomBytes(6).toString('hex')}`;
}

export function isPrefix(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/.test(text);
}

export function assertPrefix(prefix: string): void {
  if (isPrefix(prefix)) return;
  throw new FastFreezeError({
    code: 'internal',
    op: 'name an image',
    subject: JSON.stringify(prefix),
    reason: 'a prefix is 1 to 100 of A-Z a-z 0-9 _ - and starts with a letter or digit',
  });
}

export function shardName(prefix: string, number: number): string {
  return `${prefix}-${number}.ffs`;
}

export function indexName(prefix: string): string {
  return `${prefix}.ffi`;
}

export function manifestName(generation: number): string {
  return `manifest-${String(generation).padStart(8, '0')}.json`;
}

export interface ShardId {
  readonly prefix: string;
  readonly number: number;
}

/** The shard a name means. Only the spelling that `shardName` gives counts. */
export function parseShardName(name: string): ShardId | undefined {
  const [, prefix, digits] = /^(.+)-([1-9]\d{0,8})\.ffs$/.exec(name) ?? [];
  return prefix !== undefined && isPrefix(prefix) ? { prefix, number: Number(digits) } : undefined;
}

export function parseIndexName(name: string): string | undefined {
  const [, prefix] = /^(.+)\.ffi$/.exec(name) ?? [];
  return prefix !== undefined && isPrefix(prefix) ? prefix : undefined;
}

export function parseManifestName(name: string): number | undefined {
  const [, digits] = /^manifest-(\d{8,15})\.json$/.exec(name) ?? [];
  const generation = Number(digits);
  return digits !== undefined && manifestName(generation) === name ? generation : undefined;
}
