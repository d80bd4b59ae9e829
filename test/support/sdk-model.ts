// SPDX-License-Identifier: Apache-2.0
import { NormalizedSchema } from '@smithy/core/schema';
import type { $SchemaRef } from '@smithy/types';

/** Where a value is not what the AWS SDK's own model says: fields that it does not know or that are missing, other types. */
export function misfits(schema: $SchemaRef, value: unknown): string[] {
  return look(NormalizedSchema.of(schema), value, '');
}

function look(schema: NormalizedSchema, value: unknown, path: string): string[] {
  if (schema.isListSchema()) {
    if (!Array.isArray(value)) return [`${path} is no list`];
    return value.flatMap((one, i) => look(schema.getValueSchema(), one, `${path}[${i}]`));
  }
  if (schema.isStructSchema() || schema.isMapSchema()) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path} is no object`];
    return schema.isMapSchema() ? lookAtMap(schema, value, path) : lookAtStructure(schema, value, path);
  }
  const fits =
    (schema.isStringSchema() && typeof value === 'string') ||
    (schema.isBooleanSchema() && typeof value === 'boolean') ||
    (schema.isNumericSchema() && typeof value === 'number');
  return fits ? [] : [`${path} is ${typeof value}`];
}

function lookAtMap(schema: NormalizedSchema, value: object, path: string): string[] {
  return Object.entries(value).flatMap(([name, one]) => look(schema.getValueSchema(), one, `${path}.${name}`));
}

function lookAtStructure(schema: NormalizedSchema, value: object, path: string): string[] {
  const members = Object.fromEntries(schema.structIterator());
  const found = Object.entries(value).flatMap(([name, one]) => {
    const member = members[name];
    return member === undefined ? [`${path}.${name} (unknown)`] : look(member, one, `${path}.${name}`);
  });
  return [...found, ...requiredMembers(schema).flatMap((name) => (name in value ? [] : [`${path}.${name} (missing)`]))];
}

/** A structure is [3, namespace, name, traits, names, schemas, count]: the first `count` members are required. */
function requiredMembers(schema: NormalizedSchema): string[] {
  const given: unknown = schema.getSchema();
  if (!Array.isArray(given)) return [];
  const [names, count] = [given[4] as string[], (given[6] ?? 0) as number];
  return names.slice(0, count);
}
