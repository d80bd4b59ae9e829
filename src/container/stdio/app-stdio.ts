// SPDX-License-Identifier: Apache-2.0
import { constants, fstatSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import { isatty } from 'node:tty';
import { FastFreezeError } from '../../base/errors.js';
import { closeFd, makePipe, peekPipe } from '../../linux/fds.js';
import { type Poller } from '../../linux/poller.js';
import { openPseudoTerminal, writeTerminalSettings, writeWindowSize } from '../../linux/terminal.js';
import { type InputRelay, createInputRelay } from './input-relay.js';
import { type OutputRelay, createOutputRelay } from './output-relay.js';
import type { StreamRecord } from './record.js';
import { type Sink, descriptorSink, fileSink } from './sink.js';

/** What the launcher saw of its own standard streams before it started the container. */
export interface OuterStdio {
  /** stdin, stdout, stderr as `run` was given them. */
  readonly terminal: readonly [boolean, boolean, boolean];
  /** stdin is our terminal, and another job is in its foreground. */
  readonly background: boolean;
  /** Settings and window size of the terminal on stdin, to give the application's own the same. */
  readonly settings?: Buffer;
  readonly windowSize?: Buffer;
  /** `--output` and `--error`. */
  readonly outputPath?: string;
  readonly errorPath?: string;
}

/** The application's standard streams, from our side. */
export interface AppStdio {
  /** Descriptors of ours to start the application on (scratch only), and what it must open itself. */
  readonly start: AppStreams;
  /** Our descriptors that take the place of the image's resources (restore only). */
  readonly inherited: readonly { readonly ourFd: number; readonly resource: string }[];
  /** Terminals that CRIU must take for external. */
  readonly externals: readonly string[];
  /** Once the application has its ends, ours of them are closed, else no stream would ever end. */
  releaseAppEnds(): void;
  /** With the application frozen: what travels in the image. Output is held back until `thaw`. */
  snapshot(): Promise<{ records: StreamRecord[]; pending: Map<StreamRecord['role'], Buffer> }>;
  /** The application runs on: go on passing its output. */
  thaw(): void;
  /** The application has ended: pass on what it left, then close. */
  finish(timeoutMs: number): Promise<void>;
  /** The application travels on in an image, and what is pending with it: close without passing it on. */
  abandon(): void;
  setWindowSize(size: Buffer): void;
  /** What the application has written to its standard output and error since it was started, or restored, here. */
  readonly outputBytes: number;
}

/** What the application's side looks like at its start; the exec helper builds it. */
export interface AppStreams {
  /** stdio for spawn: a descriptor of ours, or `ignore` for what the helper opens itself. */
  readonly stdio: readonly (number | 'ignore')[];
  readonly terminalPath?: string;
  readonly terminalFds: readonly number[];
  readonly stdinFile?: { readonly path: string; readonly offset: number; readonly flags: number };
}

export interface StdioOptions {
  readonly poller: Poller;
  readonly outer: OuterStdio;
  /** Sees what is typed before the application does, and may take bytes out. */
  readonly inputFilter?: (piece: Buffer) => Buffer;
}

interface Stream {
  readonly role: StreamRecord['role'];
  readonly fds: readonly number[];
  readonly kind: StreamRecord['kind'];
  /** CRIU's name of it as it is now. */
  readonly resource: string;
  /** The resource of the image whose place it takes. */
  readonly replaces?: string;
  /** The application's end, held by us until it has it. */
  readonly appFd: number | undefined;
  readonly sink?: Sink;
  readonly output?: OutputRelay;
  readonly input?: InputRelay;
  /** A reading end of the stdin pipe of our own, to look at what the application has not read. */
  readonly peekFd?: number;
}

/** How long output gets to reach a reader outside before the rest goes into the image. */
const SNAPSHOT_FLUSH_MS = 1_000;

/** Streams for an application that starts anew. */
export function scratchStdio(options: StdioOptions): AppStdio {
  const { outer, poller } = options;
  const streams: Stream[] = [];
  const stdio: (number | 'ignore')[] = ['ignore', 'ignore', 'ignore'];
  const terminalFds = outer.terminal[0] ? [0, 1, 2].filter((fd) => isTerminalFor(outer, fd)) : [];
  let terminal: TerminalStream | undefined;
  if (terminalFds.length > 0) {
    terminal = openTerminal(options, terminalFds, Buffer.alloc(0));
    streams.push(terminal.stream);
  }

  const stdinFile = terminalFds.includes(0) ? undefined : plainStdin(0);
  if (stdinFile !== undefined) {
    streams.push({ role: 'stdin', fds: [0], kind: 'file', resource: '', appFd: undefined });
  } else if (!terminalFds.includes(0)) {
    const stream = openInput(options, Buffer.alloc(0), inputSource(outer));
    streams.push(stream);
    stdio[0] = stream.appFd ?? 'ignore';
  }

  // One object outside stays one pipe inside: two would let stdout and stderr change places.
  const merged = sameObject(1, 2) && outer.outputPath === undefined && outer.errorPath === undefined;
  for (const [fd, role] of [
    [1, 'stdout'],
    [2, 'stderr'],
  ] as const) {
    if (terminalFds.includes(fd)) continue;
    if (fd === 2 && merged && typeof stdio[1] === 'number') {
      stdio[2] = stdio[1];
      continue;
    }
    const stream = openOutput(poller, role, merged && fd === 1 ? [1, 2] : [fd], sinkFor(options, role, undefined));
    streams.push(stream);
    stdio[fd] = stream.appFd ?? 'ignore';
  }

  const start: AppStreams = {
    stdio,
    terminalFds,
    ...(terminal === undefined ? {} : { terminalPath: terminal.path }),
    ...(stdinFile === undefined ? {} : { stdinFile }),
  };
  return assemble(streams, start, terminal);
}

/** Streams for an application that comes out of an image: what it had then, connected to what we have now. */
export function restoredStdio(
  options: StdioOptions,
  records: readonly StreamRecord[],
  pending: ReadonlyMap<StreamRecord['role'], Buffer>,
): AppStdio {
  const streams: Stream[] = [];
  let terminal: TerminalStream | undefined;
  for (const record of records) {
    const saved = pending.get(record.role) ?? Buffer.alloc(0);
    if (record.kind === 'file') {
      streams.push({ role: record.role, fds: record.fds, kind: 'file', resource: '', appFd: undefined });
    } else if (record.kind === 'terminal') {
      terminal = openTerminal(options, record.fds, saved);
      streams.push({ ...terminal.stream, replaces: record.resource });
    } else if (record.role === 'stdin') {
      streams.push({
        ...openInput(options, saved, record.ended ? undefined : inputSource(options.outer)),
        replaces: record.resource,
      });
    } else {
      const role = record.role === 'stderr' ? 'stderr' : 'stdout';
      const sink = sinkFor(options, role, record.file);
      sink.push(saved);
      streams.push({ ...openOutput(options.poller, role, record.fds, sink), replaces: record.resource });
    }
  }
  return assemble(streams, { stdio: [], terminalFds: [] }, terminal);
}

function assemble(streams: readonly Stream[], start: AppStreams, terminal: TerminalStream | undefined): AppStdio {
  const inherited = streams.flatMap((stream) =>
    stream.appFd === undefined || stream.replaces === undefined
      ? []
      : [{ ourFd: stream.appFd, resource: stream.replaces }],
  );
  const sinks = streams.flatMap((stream) => (stream.sink === undefined ? [] : [stream.sink]));
  let released = false;
  const close = (): void => {
    for (const stream of streams) {
      stream.input?.close();
      stream.output?.close();
      stream.sink?.close();
    }
  };
  return {
    start,
    inherited,
    externals: streams.filter((s) => s.kind === 'terminal').map((s) => s.resource),
    releaseAppEnds() {
      if (released) return;
      released = true;
      for (const stream of streams) {
        // The terminal's other end stays open with us, lest it hang up while nobody else has it.
        if (stream.appFd !== undefined && stream.kind === 'pipe') closeFd(stream.appFd);
      }
    },
    async snapshot() {
      for (const stream of streams) stream.output?.drain();
      await Promise.all(sinks.map((sink) => sink.flush(SNAPSHOT_FLUSH_MS)));
      for (const sink of sinks) sink.pause();
      const pending = new Map<StreamRecord['role'], Buffer>();
      const records = streams.map((stream) => record(stream, pending));
      return { records, pending };
    },
    thaw() {
      for (const sink of sinks) sink.resume();
    },
    async finish(timeoutMs) {
      for (const stream of streams) stream.output?.drain();
      for (const sink of sinks) sink.resume();
      await Promise.all(sinks.map((sink) => sink.flush(timeoutMs)));
      close();
    },
    abandon: () => close(),
    setWindowSize(size) {
      if (terminal !== undefined) writeWindowSize(terminal.masterFd, size);
    },
    get outputBytes() {
      return streams.reduce((total, { output }) => total + (output?.readBytes ?? 0), 0);
    },
  };
}

function record(stream: Stream, pending: Map<StreamRecord['role'], Buffer>): StreamRecord {
  const unread = stream.peekFd === undefined ? Buffer.alloc(0) : peekPipe(stream.peekFd);
  const saved = Buffer.concat([
    unread,
    stream.input?.pending() ?? Buffer.alloc(0),
    ...(stream.kind === 'terminal' ? [] : [stream.sink?.pending() ?? Buffer.alloc(0)]),
  ]);
  if (saved.length > 0) pending.set(stream.role, saved);
  const file = stream.sink?.file();
  return {
    kind: stream.kind,
    role: stream.role,
    fds: stream.fds,
    resource: stream.resource,
    ended: stream.input?.sourceEnded ?? false,
    pendingBytes: saved.length,
    ...(file === undefined ? {} : { file }),
  };
}

function openInput(options: StdioOptions, first: Buffer, sourceFd: number | 'silent' | undefined): Stream {
  const pipe = makePipe();
  const input = createInputRelay({
    poller: options.poller,
    sourceFd,
    targetFd: pipe.writeFd,
    closeTargetAtEnd: true,
    first,
    ...(options.inputFilter === undefined || !options.outer.terminal[0] ? {} : { filter: options.inputFilter }),
  });
  const peekFd = openSync(`/proc/self/fd/${pipe.readFd}`, constants.O_RDONLY | constants.O_NONBLOCK);
  const resource = readlinkSync(`/proc/self/fd/${pipe.readFd}`);
  return { role: 'stdin', fds: [0], kind: 'pipe', resource, appFd: pipe.readFd, input, peekFd };
}

/**
 * What is typed at our terminal while another job is in its foreground is for that one. The kernel would stop us for reading
 * it (SIGTTIN), were our session not another. The application gets an input that stays open and brings nothing: with one at
 * its end (/dev/null) it would go on without, and could not be typed to when it is continued in the foreground.
 */
function inputSource(outer: OuterStdio): number | 'silent' {
  return outer.background ? 'silent' : 0;
}

function openOutput(poller: Poller, role: 'stdout' | 'stderr', fds: readonly number[], sink: Sink): Stream {
  const pipe = makePipe();
  const output = createOutputRelay({ poller, fd: pipe.readFd, sink, closeFdAtEnd: true });
  const resource = readlinkSync(`/proc/self/fd/${pipe.writeFd}`);
  return { role, fds, kind: 'pipe', resource, appFd: pipe.writeFd, sink, output };
}

function sinkFor(options: StdioOptions, role: 'stdout' | 'stderr', file: StreamRecord['file']): Sink {
  const path = file?.path ?? (role === 'stdout' ? options.outer.outputPath : options.outer.errorPath);
  if (path !== undefined) return fileSink(options.poller, path, file?.lengthBytes);
  return descriptorSink(options.poller, role === 'stdout' ? 1 : 2);
}

interface TerminalStream {
  readonly stream: Stream;
  readonly masterFd: number;
  readonly path: string;
}

function openTerminal(options: StdioOptions, fds: readonly number[], first: Buffer): TerminalStream {
  const { masterFd, path } = openPseudoTerminal();
  const slaveFd = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
  if (options.outer.settings !== undefined) writeTerminalSettings(slaveFd, options.outer.settings);
  if (options.outer.windowSize !== undefined) writeWindowSize(masterFd, options.outer.windowSize);
  const sink = terminalSink(options.poller, fds);
  const output = createOutputRelay({ poller: options.poller, fd: masterFd, sink, closeFdAtEnd: false });
  const input = createInputRelay({
    poller: options.poller,
    sourceFd: inputSource(options.outer),
    targetFd: masterFd,
    closeTargetAtEnd: false,
    first,
    ...(options.inputFilter === undefined ? {} : { filter: options.inputFilter }),
  });
  const stat = fstatSync(slaveFd);
  const resource = `tty[${stat.rdev.toString(16)}:${stat.dev.toString(16)}]`;
  const stream: Stream = { role: 'terminal', fds, kind: 'terminal', resource, appFd: slaveFd, sink, output, input };
  return { stream, masterFd, path };
}

/**
 * Where the terminal that the application has on `fds` is outside. What it writes there besides its standard output (errors,
 * prompts, the echo of keys) must not come into a file that only its standard output was sent to. But where that went to the
 * terminal as well, the two cannot be told apart: then whatever we are given for standard output gets both.
 */
function terminalSink(poller: Poller, fds: readonly number[]): Sink {
  if (fds.includes(1)) return descriptorSink(poller, 1);
  if (fds.includes(2)) return descriptorSink(poller, 2);
  return descriptorSink(poller, isatty(0) ? 0 : 2);
}

function isTerminalFor(outer: OuterStdio, fd: number): boolean {
  if (fd === 1 && outer.outputPath !== undefined) return false;
  if (fd === 2 && outer.errorPath !== undefined) return false;
  return outer.terminal[fd] ?? false;
}

/** A regular file or /dev/null as standard input is opened by the application itself: CRIU then keeps its place. */
function plainStdin(fd: number): AppStreams['stdinFile'] | undefined {
  const stat = fstatSync(fd);
  const isNull = stat.isCharacterDevice() && stat.rdev === (1 << 8) + 3;
  if (!stat.isFile() && !isNull) return undefined;
  const path = readlinkSync(`/proc/self/fd/${fd}`);
  if (path.endsWith(' (deleted)')) return undefined;
  const info = /^pos:\s+(\d+)[\s\S]*?^flags:\s+(\d+)/m.exec(readFdinfo(fd));
  if (info === null) {
    throw new FastFreezeError({ code: 'host', op: 'look at standard input', subject: path, reason: 'no fdinfo' });
  }
  const flags = Number.parseInt(info[2] ?? '0', 8) & ~constants.O_CREAT & ~constants.O_TRUNC & ~0o2000000;
  return { path, offset: Number(info[1]), flags };
}

function readFdinfo(fd: number): string {
  return readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
}

function sameObject(a: number, b: number): boolean {
  const first = fstatSync(a);
  const second = fstatSync(b);
  return first.dev === second.dev && first.ino === second.ino && first.rdev === second.rdev;
}
