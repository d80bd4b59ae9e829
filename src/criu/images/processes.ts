// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { type ReadRange, readCommandLine } from './command-line.js';
import { type ImageCpu, readCpu, readRegisters } from './cpu.js';
import { MAGIC, readEntries } from './entries.js';
import { type Descriptor, type ImageFile, readDescriptors, readFiles } from './files.js';
import { type ProcessMemory, readMemory, savedBytesOf } from './memory.js';
import type { Message } from './protobuf.js';

export interface ImageProcess {
  readonly pid: number;
  /** 0 of the application's first process. */
  readonly parentPid: number;
  readonly processGroup: number;
  readonly session: number;
  readonly threads: number;
  readonly name: string | null;
  readonly state: 'alive' | 'dead' | 'stopped' | 'unknown';
  readonly executable: string | null;
  /** As /proc/PID/cmdline had it, at most its first 16 KiB. Null where the image does not hold it. */
  readonly commandLine: readonly string[] | null;
  /** Null for a zombie, which has none. */
  readonly memory: ProcessMemory | null;
  readonly files: readonly Descriptor[];
}

export interface ImageProcesses {
  readonly processes: readonly ImageProcess[];
  /** Pages of anonymous shared memory that the image holds, each once. */
  readonly sharedSavedBytes: number;
  /** The source machine's; null when CRIU did not record it. */
  readonly cpu: ImageCpu | null;
  /** Kinds of registers that some thread had something in: `sse`, `avx`, `avx512`... */
  readonly registers: readonly string[];
  /** What could not be read, in words. */
  readonly notes: readonly string[];
}

/** The files of an image by name; undefined where there is none. */
export type ReadSmallFile = (name: string) => Promise<Buffer | undefined>;

/** Each may cost a chunk of up to 1 MiB. */
const MAX_COMMAND_LINES = 64;

const STATES: Readonly<Record<number, ImageProcess['state']>> = { 1: 'alive', 2: 'dead', 3: 'stopped' };

/**
 * The process tree out of CRIU's own small files. What one CRIU writes otherwise than another must not hide the rest:
 * a part that cannot be understood is left out and noted.
 */
export async function readProcesses(
  read: ReadSmallFile,
  names: Iterable<string>,
  readRange: ReadRange,
): Promise<ImageProcesses> {
  const notes: string[] = [];
  const registers = new Set<string>();
  const entries = async (name: string, magic: number, optional = false): Promise<Message[]> => {
    const bytes = await read(name);
    if (bytes === undefined) {
      if (!optional) notes.push(`${name}: the image has none`);
      return [];
    }
    return understood(notes, [], () => readEntries(bytes, magic, name));
  };
  const tree = await entries('pstree.img', MAGIC.pstree);
  const fileEntries = await entries('files.img', MAGIC.files);
  const files = understood(notes, new Map<number, ImageFile>(), () => readFiles(fileEntries));
  const processes: ImageProcess[] = [];
  for (const entry of tree) {
    const pid = understood(notes, undefined, () => entry.count(1));
    if (pid === undefined) continue;
    const [core] = await entries(`core-${pid}.img`, MAGIC.core);
    const task = understood(notes, undefined, () => core?.message(3));
    const state = understood(notes, undefined, () => STATES[task?.count(1) ?? 0]) ?? 'unknown';
    const hasMemory = state !== 'dead';
    const [mm] = hasMemory ? await entries(`mm-${pid}.img`, MAGIC.mm) : [];
    const pagemap = await entries(`pagemap-${pid}.img`, MAGIC.pagemap, true);
    for (const tid of understood(notes, [], () => entry.counts(5))) {
      const [thread] = tid === pid ? [core] : await entries(`core-${tid}.img`, MAGIC.core, true);
      for (const name of understood(notes, [], () => readRegisters(thread))) registers.add(name);
    }
    const filesId = await filesIdOf(core, pid);
    const fdinfo = hasMemory && filesId !== undefined ? await entries(`fdinfo-${filesId}.img`, MAGIC.fdinfo) : [];
    const parts = understood(notes, undefined, () => ({
      parentPid: entry.count(2) ?? 0,
      processGroup: entry.count(3) ?? 0,
      session: entry.count(4) ?? 0,
      threads: Math.max(1, entry.counts(5).length),
      name: task?.text(6) ?? null,
      executable: files.get(mm?.count(12) ?? -1)?.path ?? null,
      memory: mm === undefined ? null : readMemory(mm, pagemap),
      files: readDescriptors(fdinfo, files),
    }));
    if (parts === undefined) continue;
    const commandLine = mm === undefined ? null : await commandLineOf(mm, pagemap, processes.length);
    processes.push({ pid, state, ...parts, commandLine });
  }
  if (processes.length > MAX_COMMAND_LINES) {
    notes.push(`the command lines of ${processes.length - MAX_COMMAND_LINES} further processes are not read`);
  }
  let sharedSavedBytes = 0;
  for (const name of names) {
    if (!/^pagemap-shmem-\d+\.img$/.test(name)) continue;
    const pagemap = await entries(name, MAGIC.pagemap);
    sharedSavedBytes += understood(notes, 0, () => savedBytesOf(pagemap));
  }
  const [cpuEntry] = await entries('cpuinfo.img', MAGIC.cpuinfo, true);
  const cpu = understood(notes, undefined, () => readCpu(cpuEntry)) ?? null;
  return { processes, sharedSavedBytes, cpu, registers: [...registers].sort(), notes };

  async function commandLineOf(mm: Message, pagemap: readonly Message[], number: number): Promise<string[] | null> {
    if (number >= MAX_COMMAND_LINES) return null;
    try {
      return (await readCommandLine(mm, pagemap, readRange)) ?? null;
    } catch (error) {
      note(notes, error);
      return null;
    }
  }

  /** Which table of descriptors a process has: newer CRIUs say it in core, older ones in a file of its own. */
  async function filesIdOf(core: Message | undefined, pid: number): Promise<number | undefined> {
    const ids = understood(notes, undefined, () => core?.message(4));
    const [own] = ids === undefined ? await entries(`ids-${pid}.img`, MAGIC.ids, true) : [ids];
    return understood(notes, undefined, () => own?.count(2));
  }
}

function understood<T>(notes: string[], otherwise: T, action: () => T): T {
  try {
    return action();
  } catch (error) {
    note(notes, error);
    return otherwise;
  }
}

/** Anything but an image that is not what it should be is no matter of the image, and thrown again. */
function note(notes: string[], error: unknown): void {
  if (!(error instanceof FastFreezeError) || (error.code !== 'image' && error.code !== 'not-found')) throw error;
  const text = `${error.subject ?? 'a file'}: ${error.reason}`;
  if (!notes.includes(text)) notes.push(text);
}
