// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import protobuf from 'protobufjs';

/** Where a value in JSON is not what Google's own definition of `batch.v1.Job` says: unknown fields, other types, no such name. */
export function jobMisfits(value: unknown): string[] {
  return look(batchRoot().lookupType('google.cloud.batch.v1.Job'), value, '');
}

let root: protobuf.Root | undefined;

/** Out of Google's client for Batch, whose code is not loaded: it would take a second. */
function batchRoot(): protobuf.Root {
  if (root === undefined) {
    const path = createRequire(import.meta.url).resolve('@google-cloud/batch/build/protos/protos.json');
    root = protobuf.Root.fromJSON(JSON.parse(readFileSync(path, 'utf8')) as protobuf.INamespace);
    root.resolveAll();
  }
  return root;
}

function look(type: protobuf.Type, value: unknown, path: string): string[] {
  if (type.fullName === '.google.protobuf.Duration') {
    return typeof value === 'string' && /^\d+(\.\d{1,9})?s$/u.test(value) ? [] : [`${path} is no duration`];
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path} is no object`];
  const names = Object.keys(value);
  const several = type.oneofsArray.filter((one) => one.oneof.filter((name) => names.includes(name)).length > 1);
  return [
    ...several.map(({ name }) => `${path} has several of ${name}`),
    ...Object.entries(value).flatMap(([name, one]) => {
      const field = type.fields[name];
      return field === undefined ? [`${path}.${name} (unknown)`] : lookAtField(field, one, `${path}.${name}`);
    }),
  ];
}

function lookAtField(field: protobuf.Field, value: unknown, path: string): string[] {
  if (field.map) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path} is no object`];
    return Object.entries(value).flatMap(([name, one]) => lookAtOne(field, one, `${path}.${name}`));
  }
  if (!field.repeated) return lookAtOne(field, value, path);
  if (!Array.isArray(value)) return [`${path} is no list`];
  return value.flatMap((one, i) => lookAtOne(field, one, `${path}[${i}]`));
}

function lookAtOne({ resolvedType, type }: protobuf.Field, value: unknown, path: string): string[] {
  if (resolvedType instanceof protobuf.Type) return look(resolvedType, value, path);
  if (resolvedType instanceof protobuf.Enum) {
    return typeof value === 'string' && value in resolvedType.values ? [] : [`${path} is no ${resolvedType.name}`];
  }
  if (type === 'string') return typeof value === 'string' ? [] : [`${path} is no text`];
  if (type === 'bool') return typeof value === 'boolean' ? [] : [`${path} is no boolean`];
  if (/^(?:u?int|s?fixed)(?:32|64)$/u.test(type))
    return Number.isSafeInteger(value) ? [] : [`${path} is no whole number`];
  return typeof value === 'number' ? [] : [`${path} is no ${type}`];
}
