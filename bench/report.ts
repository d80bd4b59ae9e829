// SPDX-License-Identifier: Apache-2.0
import { OLD_WAY, PLAIN } from './contestants.js';
import type { Machine } from './machine.js';
import type { Measurement, Peak } from './measure.js';
import { UPLOAD_OLD_WAY } from './upload.js';

/** All runs of one contestant with one workload. */
export interface Row {
  readonly workload: string;
  readonly contestant: string;
  readonly runs: readonly Measurement[];
  /** One more, of which only the memory counts. */
  readonly memoryRun: Measurement;
  /** Of uploads: bytes per second that the slower of line and server can do, when it has nothing else to do. */
  readonly limits?: { readonly up: number; readonly down: number };
}

export interface Report {
  readonly machine: Machine;
  readonly takenAt: string;
  readonly rows: readonly Row[];
}

type Numbers =
  'frozenSeconds' | 'durableSeconds' | 'freezeToDurableSeconds' | 'storedBytes' | 'dumpCpuSeconds' | RestoreNumbers;
type RestoreNumbers = 'restoreSeconds' | 'criuRestoreSeconds' | 'restoreCpuSeconds';

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[middle - 1] ?? NaN, sorted[middle] ?? NaN];
  return sorted.length % 2 === 0 ? (low + high) / 2 : high;
}

export function middle(row: Row | undefined, key: Numbers): number {
  return median((row?.runs ?? []).map((run) => run[key] ?? NaN));
}

/** A table in Markdown, which is also how it is printed. */
export function toMarkdown(report: Report): string {
  const { machine } = report;
  const gib = (machine.memoryBytes / 2 ** 30).toFixed(0);
  const lines = [
    `${machine.cpu}, ${machine.cores} CPUs, ${gib} GiB, Linux ${machine.kernel}, Node ${machine.node}, CRIU ${machine.criu}, ` +
      `as ${machine.identity}; fastfreeze ${machine.commit}, ${report.takenAt.slice(0, 10)}; medians.`,
  ];
  const workloads = [...new Set(report.rows.map(({ workload }) => workload))];
  for (const workload of workloads) {
    const rows = report.rows.filter((row) => row.workload === workload);
    const isUpload = rows.some(({ limits }) => limits !== undefined);
    const [head, toCells] = isUpload ? [UPLOAD_HEAD, uploadCells] : [HEAD, cells];
    lines.push('', `**${workload}**`, '', ...table([head, ...rows.map((row) => toCells(row, rows))]));
  }
  return `${lines.join('\n')}\n`;
}

const HEAD = [
  'way',
  'frozen s',
  'durable s',
  'stored MiB',
  'CPU s',
  'peak MB',
  'restore s',
  'CRIU of it s',
  'CPU s',
  'peak MB',
  'frozen / plain',
  'durable / disk + tar',
  'restore / plain',
  'runs',
];

const UPLOAD_HEAD = [
  'way',
  'frozen s',
  'freeze to durable s',
  'stored MiB',
  'up MB/s',
  'of limit',
  'CPU s',
  'peak MB',
  'restore s',
  'down MB/s',
  'of limit',
  'CPU s',
  'peak MB',
  'durable / old way',
  'restore / old way',
  'runs',
];

function uploadCells(row: Row, rows: readonly Row[]): string[] {
  const number = (key: Numbers, digits: number, unit = 1): string => format(middle(row, key) / unit, digits);
  const rate = (key: Numbers): number => median(row.runs.map((run) => run.storedBytes / (run[key] ?? NaN)));
  const old = rows.find(({ contestant }) => contestant === UPLOAD_OLD_WAY);
  const ratio = (key: Numbers): string => format(middle(row, key) / middle(old, key), 2);
  const [up, down] = [rate('freezeToDurableSeconds'), rate('restoreSeconds')];
  return [
    row.contestant,
    number('frozenSeconds', 2),
    number('freezeToDurableSeconds', 2),
    number('storedBytes', 0, 2 ** 20),
    format(up / 1e6, 1),
    `${format((up / (row.limits?.up ?? NaN)) * 100, 0)}%`,
    number('dumpCpuSeconds', 2),
    megabytes(row.memoryRun.dumpPeak),
    number('restoreSeconds', 2),
    format(down / 1e6, 1),
    `${format((down / (row.limits?.down ?? NaN)) * 100, 0)}%`,
    number('restoreCpuSeconds', 2),
    megabytes(row.memoryRun.restorePeak),
    ratio('freezeToDurableSeconds'),
    ratio('restoreSeconds'),
    String(row.runs.length),
  ];
}

function cells(row: Row, rows: readonly Row[]): string[] {
  const number = (key: Numbers, digits: number, unit = 1): string => format(middle(row, key) / unit, digits);
  const ratio = (key: Numbers, other: string): string => {
    const reference = rows.find(({ contestant }) => contestant === other);
    return format(middle(row, key) / middle(reference, key), 2);
  };
  return [
    row.contestant,
    number('frozenSeconds', 2),
    number('durableSeconds', 2),
    number('storedBytes', 0, 2 ** 20),
    number('dumpCpuSeconds', 2),
    megabytes(row.memoryRun.dumpPeak),
    number('restoreSeconds', 2),
    number('criuRestoreSeconds', 2),
    number('restoreCpuSeconds', 2),
    megabytes(row.memoryRun.restorePeak),
    ratio('frozenSeconds', PLAIN),
    ratio('durableSeconds', OLD_WAY),
    ratio('restoreSeconds', PLAIN),
    String(row.runs.length),
  ];
}

/** Of a run whose memory was watched. */
export function megabytes(peak: Peak | undefined): string {
  return format((peak?.bytes ?? NaN) / 1e6, 0);
}

function format(value: number, digits: number): string {
  return Number.isFinite(value) ? value.toFixed(digits) : '-';
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join(' | ')} |`;
  const [head, ...body] = rows;
  const rule = `| ${widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  return [line(head ?? []), rule, ...body.map(line)];
}

const BEGIN = '<!-- bench: begin -->';
const END = '<!-- bench: end -->';

/** A document with its tables between the marks replaced; the tables alone where there are no marks. */
export function replaceTables(document: string | undefined, tables: string): string {
  const from = document?.indexOf(BEGIN) ?? -1;
  const to = document?.indexOf(END) ?? -1;
  if (document === undefined || from < 0 || to < from) return tables;
  return `${document.slice(0, from + BEGIN.length)}\n\n${tables}\n${document.slice(to)}`;
}
