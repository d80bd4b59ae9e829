// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { sleep } from './until.js';

export type Direction = 'up' | 'down';

/** What happens after some bytes: the connections of that instant are reset, or all of them from then on, or a bit is flipped. */
interface Trap {
  readonly direction: Direction;
  leftBytes: number;
  readonly then: 'reset' | 'refuse' | 'flip';
}

/** A network that can fail, between a client and a server on loopback. It passes bytes and knows nothing of what they mean. */
export class TcpProxy {
  /** Connections that were reset on purpose. */
  resets = 0;
  /** For each piece of bytes, on its way to the server. */
  delayMs = 0;
  readonly passed = { up: 0, down: 0 };
  readonly #sockets = new Set<Socket>();
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
    const server = createServer({ allowHalfOpen: false }, (client) => this.#join(client));
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

  /** After so many more bytes in that direction, reset every connection, `refuse` for good, or `flip` a bit. Happens once. */
  trap(direction: Direction, bytes: number, then: Trap['then']): void {
    this.#trap = { direction, leftBytes: bytes, then };
  }

  /** Whether the last trap has not been sprung yet. */
  get armed(): boolean {
    return this.#trap !== undefined;
  }

  stop(): void {
    this.#trap = undefined;
    this.refuse();
  }

  #join(client: Socket): void {
    const server = connect(this.targetPort, '127.0.0.1');
    const pair = [client, server] as const;
    for (const socket of pair) {
      this.#sockets.add(socket);
      // Whatever becomes of one end becomes of the other.
      socket.on('error', () => undefined);
      socket.once('close', () => {
        this.#sockets.delete(socket);
        for (const other of pair) other.destroy();
      });
    }
    client.on('data', (bytes: Buffer) => void this.#pass('up', client, server, bytes));
    server.on('data', (bytes: Buffer) => void this.#pass('down', server, client, bytes));
  }

  async #pass(direction: Direction, from: Socket, to: Socket, bytes: Buffer): Promise<void> {
    this.passed[direction] += bytes.length;
    if (this.#trap?.direction === direction) {
      this.#trap.leftBytes -= bytes.length;
      if (this.#trap.leftBytes <= 0) {
        const { then } = this.#trap;
        this.#trap = undefined;
        if (then === 'flip') flipBit(bytes);
        else {
          if (then === 'refuse') this.refuse();
          else this.#resetAll();
          return;
        }
      }
    }
    from.pause();
    if (direction === 'up' && this.delayMs > 0) await sleep(this.delayMs);
    if (to.destroyed || to.write(bytes)) from.resume();
    else to.once('drain', () => from.resume());
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
