// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { sleep } from './until.js';

export type Direction = 'up' | 'down';

/**
 * What becomes of the connections of that instant: they are reset, or end cleanly as if all had been sent, or stand still
 * for good; `refuse` resets them and all that come later; `flip` changes one bit, and nobody is told.
 */
export type Mishap = 'reset' | 'end' | 'stall' | 'refuse' | 'flip';

interface Trap {
  readonly direction: Direction;
  leftBytes: number;
  readonly then: Mishap;
}

/** Pieces into which bytes are cut on a slow line. */
const PIECES_PER_SECOND = 20;

/** A network that can fail, between a client and a server on loopback. It passes bytes and knows nothing of what they mean. */
export class TcpProxy {
  /** Connections that were reset on purpose. */
  resets = 0;
  /** For each piece of bytes, on its way to the server. */
  delayMs = 0;
  /** Of each connection in each direction; undefined for all that goes. */
  bytesPerSecond: number | undefined;
  readonly passed = { up: 0, down: 0 };
  readonly #sockets = new Set<Socket>();
  /** Ends of connections that stand still: what happens at one is not told to the other. They stay until the proxy refuses or stops. */
  readonly #stalled = new WeakSet<Socket>();
  #trap: Trap | undefined;
  #server: Server | undefined;
  #port = 0;

  private constructor(private readonly targetPort: number) {}

  static async start(target: string): Promise<TcpProxy> {
    const proxy = new TcpProxy(Number(new URL(target).port));
    await proxy.accept();
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Listen, as after the start; on the same port as before. */
  async accept(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer({ allowHalfOpen: true }, (client) => this.#join(client));
    this.#server = server;
    server.listen(this.#port, '127.0.0.1');
    await once(server, 'listening');
    this.#port = (server.address() as AddressInfo).port;
  }

  /** The server has gone: open connections are reset, new ones refused. */
  refuse(): void {
    this.#server?.close();
    this.#server = undefined;
    this.#resetAll();
  }

  /** After so many more bytes in that direction, of which the last is still passed on, something happens. Once. */
  trap(direction: Direction, bytes: number, then: Mishap): void {
    this.#trap = { direction, leftBytes: bytes, then };
  }

  /** Whether the last trap has not been sprung yet. */
  get armed(): boolean {
    return this.#trap !== undefined;
  }

  /** No trap, no delay, and a server that is there. */
  async heal(): Promise<void> {
    this.#trap = undefined;
    this.delayMs = 0;
    this.bytesPerSecond = undefined;
    await this.accept();
  }

  stop(): void {
    this.#trap = undefined;
    this.refuse();
  }

  #join(client: Socket): void {
    const server = connect({ port: this.targetPort, host: '127.0.0.1', allowHalfOpen: true });
    this.#forward('up', client, server);
    this.#forward('down', server, client);
  }

  #forward(direction: Direction, from: Socket, to: Socket): void {
    this.#sockets.add(from);
    from.on('data', (bytes: Buffer) => void this.#pass(direction, from, to, bytes));
    // Whatever becomes of one end becomes of the other, after the bytes that came before; unless nothing passes any more.
    const tell = (act: () => void) => () => {
      if (!this.#stalled.has(from)) act();
    };
    from.once(
      'end',
      tell(() => to.end()),
    );
    from.on(
      'error',
      tell(() => to.resetAndDestroy()),
    );
    from.once('close', () => this.#sockets.delete(from));
    from.once(
      'close',
      tell(() => to.destroySoon()),
    );
  }

  async #pass(direction: Direction, from: Socket, to: Socket, bytes: Buffer): Promise<void> {
    from.pause();
    for (let rest = bytes; rest.length > 0;) {
      const piece = rest.subarray(0, this.#pieceBytes());
      rest = rest.subarray(piece.length);
      if (this.bytesPerSecond !== undefined) await sleep(1000 / PIECES_PER_SECOND);
      if (direction === 'up' && this.delayMs > 0) await sleep(this.delayMs);
      if (this.#stalled.has(from)) return;
      const last = this.#count(direction, piece.length);
      if (last?.then === 'flip') flipBit(piece);
      else if (last !== undefined) {
        if (to.writable) to.write(piece.subarray(0, last.bytes));
        this.#happen(last.then);
        return;
      }
      if (to.writable && !to.write(piece)) await drained(to);
    }
    if (!this.#stalled.has(from)) from.resume();
  }

  #pieceBytes(): number | undefined {
    return this.bytesPerSecond === undefined
      ? undefined
      : Math.max(1, Math.round(this.bytesPerSecond / PIECES_PER_SECOND));
  }

  /** How many of these bytes are the last ones, when they are. */
  #count(direction: Direction, bytes: number): { readonly bytes: number; readonly then: Mishap } | undefined {
    const trap = this.#trap;
    if (trap?.direction !== direction || bytes < trap.leftBytes) {
      if (trap?.direction === direction) trap.leftBytes -= bytes;
      this.passed[direction] += bytes;
      return undefined;
    }
    this.#trap = undefined;
    this.passed[direction] += trap.then === 'flip' ? bytes : trap.leftBytes;
    return { bytes: trap.leftBytes, then: trap.then };
  }

  #happen(mishap: Mishap): void {
    if (mishap === 'refuse') this.refuse();
    else if (mishap === 'reset') this.#resetAll();
    else if (mishap === 'end') for (const socket of this.#sockets) socket.destroySoon();
    else {
      for (const socket of this.#sockets) {
        this.#stalled.add(socket);
        socket.pause();
      }
    }
  }

  #resetAll(): void {
    for (const socket of this.#sockets) {
      this.resets++;
      socket.resetAndDestroy();
    }
  }
}

/** In the middle: the ends of what arrives at once may be headers. */
function flipBit(bytes: Buffer): void {
  const at = bytes.length >> 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
}

async function drained(socket: Socket): Promise<void> {
  await new Promise<void>((resolve) => {
    socket.once('drain', resolve);
    socket.once('close', () => resolve());
  });
}
