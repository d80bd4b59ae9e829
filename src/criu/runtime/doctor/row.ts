// SPDX-License-Identifier: Apache-2.0

export type RowStatus = 'ok' | 'warn' | 'fail';

/** One thing that was examined. What is not ok says what to do. */
export interface Row {
  readonly name: string;
  readonly status: RowStatus;
  readonly detail: string;
  readonly remedy?: string;
}

export function ok(name: string, detail: string): Row {
  return { name, status: 'ok', detail };
}

/** It may hinder some jobs. */
export function warn(name: string, detail: string, remedy: string): Row {
  return { name, status: 'warn', detail, remedy };
}

/** No job can be frozen here. */
export function fail(name: string, detail: string, remedy: string): Row {
  return { name, status: 'fail', detail, remedy };
}
