// SPDX-License-Identifier: Apache-2.0

/** What a key says of an object beside its name. */
export interface KeyFacts {
  readonly name: string;
  /** Undefined for one that only one may create: twins must ask for the same key, whatever they write. */
  readonly sizeBytes: number | undefined;
}

const ONCE = 'once';

/**
 * Keys of one job's objects. A written object's has its size in it, which the service would not tell, and a number that
 * counts attempts: a key that was reserved by an attempt that failed stays reserved for a while.
 */
export function writtenKey(prefix: string, name: string, sizeBytes: number, attempt: number): string {
  return `${prefix}${name}:${sizeBytes}:${attempt}`;
}

/** Of any number of writers one gets it. The second attempt is for all who see that the first was never finished. */
export function onceKey(prefix: string, name: string, attempt: number): string {
  return `${prefix}${name}:${ONCE}:${attempt}`;
}

/** What every key of this object begins with, and no other. */
export function objectPrefix(prefix: string, name: string): string {
  return `${prefix}${name}:`;
}

export function parseKey(prefix: string, key: string): KeyFacts | undefined {
  if (!key.startsWith(prefix)) return undefined;
  const [, name, size] = /^([^:]+):(once|\d+):\d+$/.exec(key.slice(prefix.length)) ?? [];
  if (name === undefined) return undefined;
  return { name, sizeBytes: size === ONCE ? undefined : Number(size) };
}

/**
 * Names that come before one which ends in a number, the nearest first: `manifest-00000007.json` comes after
 * `manifest-00000006.json`. Empty where there is no number.
 */
export function namesBefore(name: string, count: number): string[] {
  const found = numberIn(name);
  if (found === undefined) return [];
  const { number, withNumber } = found;
  const before = Array.from({ length: Math.min(count, Math.max(0, number - 1)) }, (_, i) => number - 1 - i);
  return before.map(withNumber);
}

/** The one that follows; undefined for a name without a number. */
export function nameAfter(name: string): string | undefined {
  const found = numberIn(name);
  return found?.withNumber(found.number + 1);
}

function numberIn(
  name: string,
): { readonly number: number; readonly withNumber: (number: number) => string } | undefined {
  const [, head, digits, tail] = /^(.*?)(\d+)(\D*)$/.exec(name) ?? [];
  if (head === undefined || digits === undefined || tail === undefined) return undefined;
  const width = digits.startsWith('0') ? digits.length : 0;
  return { number: Number(digits), withNumber: (one) => `${head}${String(one).padStart(width, '0')}${tail}` };
}
