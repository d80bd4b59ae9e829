// SPDX-License-Identifier: Apache-2.0
import type { Descriptor } from '../criu/images/files.js';
import { MEMORY_KINDS, type MemorySize, type ProcessMemory } from '../criu/images/memory.js';
import type { ImageProcess } from '../criu/images/processes.js';
import type { Inspected, InspectedApp, InspectedImage } from '../engine/inspect.js';
import { ageText, holderText, plain, sizeText, table } from './text.js';

/** What `inspect` prints for people. */
export function inspectText(inspected: Inspected): string {
  const { writer, finished, holder, image, app, processes, notes } = inspected;
  const facts: (readonly [string, string])[] = [
    ['image', plain(inspected.imageUrl)],
    ['generation', `${inspected.generation}, ${inspected.state}`],
    ['written', `${inspected.createdAt}, ${ageText(inspected.createdAt)} ago`],
    ['by', plain(`fastfreeze ${writer.version}, CRIU ${writer.criu}, host ${writer.host}, Linux ${writer.kernel}`)],
  ];
  if (holder !== null) facts.push(['held by', plain(holderText(holder))]);
  if (finished !== null) facts.push(['ended', plain(finished.signal ?? `with exit code ${finished.exitCode ?? 0}`)]);
  if (app !== null) facts.push(...appFacts(app));
  if (image !== null) facts.push(...imageFacts(image), ['needs', needs(inspected)]);
  return [
    table(facts, ['left', 'left']),
    processes.length === 0 ? '' : `\nProcesses\n${processTable(processes)}`,
    processes.length === 0 ? '' : `\nMemory in the image\n${memoryTable(inspected)}`,
    listing('Open files', processes, isFile),
    listing('Sockets', processes, isSocket),
    notes.length === 0 ? '' : `\nNot shown\n${notes.map((note) => `  ${plain(note)}\n`).join('')}`,
  ].join('');
}

function appFacts(app: InspectedApp): (readonly [string, string])[] {
  const masked = app.cpu === null || app.cpu.masked.length === 0 ? '' : `, ${app.cpu.masked.join(' ')} hidden`;
  const who = app.identity === null ? 'root in its container' : `uid ${app.identity.uid}, gid ${app.identity.gid}`;
  return [
    ['command', plain(app.command.join(' '))],
    ['rights', app.privileged ? "the machine's: only root can restore it" : who],
    ...app.streams.map(({ role, kind, path, pendingBytes }): readonly [string, string] => {
      const pending = pendingBytes === 0 ? '' : `, ${sizeText(pendingBytes)} pending`;
      return [role, plain(`${kind}${path === null ? '' : ` ${path}`}${pending}`)];
    }),
    ...app.appending.map(({ path, lengthBytes }): readonly [string, string] => [
      'appends to',
      plain(`${path}, ${sizeText(lengthBytes)}`),
    ]),
    ['reads', `${app.reads.length} files that must be the same at a restore (--json names them)`],
    ...app.inexact.map((what): readonly [string, string] => ['not exact', plain(what)]),
    ...(app.carried === null
      ? []
      : [['carried', `${app.carried.files} files that it reads, ${sizeText(app.carried.dataBytes)}`] as const]),
    ...(app.preserved === null ? [] : [['preserved', preservedText(app.preserved)] as const]),
    ...(app.cpu === null
      ? []
      : [['may use', plain(`${app.cpu.features.join(' ')} (baseline ${app.cpu.baseline}${masked})`)] as const]),
  ];
}

function preservedText({ roots, entries, dataBytes }: NonNullable<InspectedApp['preserved']>): string {
  const places = roots.length > 0 ? `: ${roots.join(', ')}` : '';
  return plain(`${entries} files and directories, ${sizeText(dataBytes)}${places}`);
}

function imageFacts(image: InspectedImage): (readonly [string, string])[] {
  const ratio = image.compressionRatio === null ? '' : `, ${image.compressionRatio.toFixed(2)} : 1`;
  return [
    [
      'size',
      `${sizeText(image.rawBytes)}, ${sizeText(image.storedBytes)} stored (${image.codec}${ratio})${image.cipher === 'none' ? '' : `, encrypted (${image.cipher})`}`,
    ],
    ['objects', `${image.shards.length} shards, ${image.chunks} chunks, ${image.files} files of CRIU`],
    ...(image.baseGeneration === null ? [] : [['based on', `generation ${image.baseGeneration}`] as const]),
  ];
}

/** What a processor must have. Libraries choose their code by more than the registers that happened to be in use. */
function needs({ app, cpu, registers }: Inspected): string {
  const used = `x86-64${registers.map((name) => `, ${name}`).join('')} registers`;
  if (cpu === null)
    return app?.cpu ? `${used}, and what it may use` : `${used}; other features of the CPU are not recorded`;
  return plain(
    `${used}; made on ${cpu.name} (family ${cpu.family}, model ${cpu.model}) with ${cpu.features.join(' ')}`,
  );
}

function processTable(processes: readonly ImageProcess[]): string {
  const rows = inTreeOrder(processes).map(({ process, depth }) => [
    String(process.pid),
    `${'  '.repeat(depth)}${plain(process.name ?? '?')}`,
    process.state === 'alive' ? '' : process.state,
    process.threads === 1 ? '' : `${process.threads} threads`,
    plain(process.commandLine?.join(' ') ?? process.executable ?? ''),
  ]);
  return table(rows, ['right', 'left', 'left', 'left', 'left'], '  ');
}

/** Parents before their children, each with its depth. Strange parents make roots: everything is shown once. */
function inTreeOrder(processes: readonly ImageProcess[]): { process: ImageProcess; depth: number }[] {
  const shown = new Set<number>();
  const rows: { process: ImageProcess; depth: number }[] = [];
  const show = (process: ImageProcess, depth: number): void => {
    if (shown.has(process.pid)) return;
    shown.add(process.pid);
    rows.push({ process, depth });
    for (const child of processes) if (child.parentPid === process.pid) show(child, depth + 1);
  };
  const pids = new Set(processes.map((process) => process.pid));
  for (const process of processes) if (!pids.has(process.parentPid)) show(process, 0);
  for (const process of processes) show(process, 0);
  return rows;
}

function memoryTable({ processes, sharedSavedBytes }: Inspected): string {
  const head = ['PID', 'saved', 'of mapped', 'private', 'shared', 'file private', 'file shared'];
  const rows = processes.map(({ pid, memory }) => {
    if (memory === null) return [String(pid), 'none'];
    const total = sum(memory);
    const kinds = (['private', 'shared', 'filePrivate', 'fileShared'] as const).map((kind) => memory[kind]);
    return [String(pid), sizeText(total.savedBytes), sizeText(total.mappedBytes), ...kinds.map(pair)];
  });
  const sides = ['right', 'right', 'right', 'right', 'right', 'right', 'right'] as const;
  const shared =
    sharedSavedBytes === 0 ? '' : `  shared between processes, saved once: ${sizeText(sharedSavedBytes)}\n`;
  return `${table([head, ...rows], sides, '  ')}${shared}`;
}

function pair({ savedBytes, mappedBytes }: MemorySize): string {
  if (mappedBytes === 0 && savedBytes === 0) return '-';
  return savedBytes === 0 ? sizeText(mappedBytes) : `${sizeText(savedBytes)} of ${sizeText(mappedBytes)}`;
}

function sum(memory: ProcessMemory): MemorySize {
  const add = (field: keyof MemorySize): number => MEMORY_KINDS.reduce((total, kind) => total + memory[kind][field], 0);
  return { mappedBytes: add('mappedBytes'), savedBytes: add('savedBytes') };
}

function isSocket({ kind, local }: Descriptor): boolean {
  return local !== undefined || kind === 'unix' || kind === 'netlink' || kind === 'packet';
}

function isFile({ kind, path }: Descriptor): boolean {
  return path !== undefined && kind !== 'unix';
}

function listing(title: string, processes: readonly ImageProcess[], wanted: (one: Descriptor) => boolean): string {
  const rows = processes.flatMap(({ pid, files }) =>
    files.filter(wanted).map((one) => [String(pid), `fd ${one.fd}`, one.kind, plain(details(one))]),
  );
  return rows.length === 0 ? '' : `\n${title}\n${table(rows, ['right', 'left', 'left', 'left'], '  ')}`;
}

function details({ path, access, append, positionBytes, local, remote, state }: Descriptor): string {
  if (local !== undefined) {
    return `${local}${remote === undefined ? '' : ` -> ${remote}`}${state === undefined ? '' : ` ${state}`}`;
  }
  const how = access === undefined ? '' : ` (${append === true ? 'append' : access}`;
  const at = positionBytes === undefined || how === '' ? '' : `, at ${positionBytes}`;
  return `${path ?? ''}${how}${at}${how === '' ? '' : ')'}`;
}
