// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a test may do to a request. */
export type CacheFault =
  /** Answer with an error, as the part that was asked would. */
  | {
      readonly kind: 'answer';
      readonly status: number;
      readonly message?: string;
      readonly headers?: Record<string, string>;
    }
  /** The connection is reset before anything is done. */
  | { readonly kind: 'reset' }
  /** Everything is done; the connection is reset instead of the answer. */
  | { readonly kind: 'lose-answer' }
  /** Nothing is done before that, as where whoever asked stands still. */
  | { readonly kind: 'hold'; readonly until: Promise<void> };

export interface CacheRequest {
  readonly what: 'reserve' | 'finalize' | 'lookup' | 'upload' | 'download';
  /** Of the entry; of a lookup, what was asked for first. */
  readonly key: string;
}

export interface CacheScope {
  readonly Scope: string;
  /** 1 to read, 2 to write, 3 for both. */
  readonly Permission: number;
}

export interface CacheEntry {
  readonly id: number;
  readonly key: string;
  readonly version: string;
  readonly scope: string;
  /** Undefined as long as its upload is not finalized. */
  bytes: Buffer | undefined;
  usedAt: number;
}

/** The scope of a push to the default branch. */
const MAIN: readonly CacheScope[] = [{ Scope: 'refs/heads/main', Permission: 3 }];
const SERVICE = '/twirp/github.actions.results.api.v1.CacheService/';
/** Azure's path of an account that is named by an address. */
const CONTAINER = '/devstoreaccount1/actions-cache/';

/**
 * GitHub's cache service, second version, and the blob storage behind it, as far as `@actions/cache` speaks to them, and not an inch further:
 * what it does not know is answered with 501 and kept in `violations`, which `check` and `stop` throw. Keys are immutable within a scope and a
 * version; a key is taken from its reservation on; lookups match prefixes, the newest entry first.
 */
export class CacheFake {
  readonly requests: CacheRequest[] = [];
  readonly violations: string[] = [];
  /** Asked once per request. */
  fault: (request: CacheRequest) => CacheFault | undefined = () => undefined;
  /** Beyond it what was not used for longest is evicted. */
  limitBytes = Infinity;
  /** What the newest entry is: GitHub does not say. */
  newestBy: 'reserved' | 'finalized' = 'reserved';
  /** Nothing can be reserved any more. */
  isFull = false;
  readonly #entries: CacheEntry[] = [];
  readonly #uploads = new Map<string, Upload>();
  readonly #tokens = new Map<string, readonly CacheScope[]>();
  #clock = 0;
  #url = '';

  private constructor(private readonly server: Server) {}

  static async start(): Promise<CacheFake> {
    const server = createServer();
    server.keepAliveTimeout = 2_000;
    const fake = new CacheFake(server);
    server.on('request', (request, response) => void fake.#serve(request, response));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    fake.#url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return fake;
  }

  /** What the runner gives the steps of an action. */
  env(scopes: readonly CacheScope[] = MAIN, lifeS = 3600): Record<string, string> {
    const payload = { ac: JSON.stringify(scopes), exp: Math.floor(Date.now() / 1000) + lifeS };
    const part = (json: object): string => Buffer.from(JSON.stringify(json)).toString('base64url');
    const token = `${part({ alg: 'none' })}.${part(payload)}.${randomBytes(16).toString('base64url')}`;
    this.#tokens.set(token, scopes);
    return {
      GITHUB_ACTIONS: 'true',
      GITHUB_SERVER_URL: 'https://github.com',
      ACTIONS_RESULTS_URL: `${this.#url}/`,
      ACTIONS_RUNTIME_TOKEN: token,
      ACTIONS_CACHE_SERVICE_V2: 'True',
    };
  }

  /** Keys of entries that can be restored, the oldest first. */
  keys(): string[] {
    return this.#entries.flatMap(({ key, bytes }) => (bytes === undefined ? [] : [key]));
  }

  entry(key: string): CacheEntry | undefined {
    return this.#entries.find((one) => one.key === key && one.bytes !== undefined);
  }

  /** Removes entries, as GitHub does when it wants. Returns how many. */
  evict(isMeant: (key: string) => boolean): number {
    const before = this.#entries.length;
    this.#keep(({ key }) => !isMeant(key));
    return before - this.#entries.length;
  }

  /** Takes a key as a run does that is killed before it has uploaded anything. */
  reserve(key: string, version: string, scope = 'refs/heads/main'): void {
    this.#entries.push({ id: ++this.#clock, key, version, scope, bytes: undefined, usedAt: this.#clock });
  }

  check(): void {
    if (this.violations.length > 0)
      throw new Error(`requests that the fake does not know:\n${this.violations.join('\n')}`);
  }

  async stop(): Promise<void> {
    const closed = once(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    await closed;
    this.check();
  }

  #keep(isKept: (entry: CacheEntry) => boolean): void {
    const kept = this.#entries.filter(isKept);
    this.#entries.splice(0, this.#entries.length, ...kept);
  }

  async #serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const body = await bodyOf(message);
      const url = new URL(message.url ?? '/', this.#url);
      const call = this.#understand(message, url, body);
      this.requests.push({ what: call.what, key: call.key });
      const fault = this.fault({ what: call.what, key: call.key });
      if (fault?.kind === 'reset') {
        message.socket.destroy();
        return;
      }
      if (fault?.kind === 'answer') {
        const { status, message: said = 'injected', headers } = fault;
        answer(response, status, call.isBlob ? azureError('Injected', said) : twirpError(status, said), headers);
        return;
      }
      if (fault?.kind === 'hold') await fault.until;
      const reply = call.act();
      if (fault?.kind === 'lose-answer') message.socket.destroy();
      else answer(response, reply.status, reply.body, reply.headers);
    } catch (error) {
      if (!(error instanceof Refusal)) this.violations.push(String(error));
      const status = error instanceof Refusal ? error.status : 500;
      answer(response, status, twirpError(status, error instanceof Error ? error.message : String(error)));
    }
  }

  #understand(message: IncomingMessage, url: URL, body: Buffer): Call {
    if (message.method === 'POST' && url.pathname.startsWith(SERVICE)) {
      return this.#service(message, url.pathname.slice(SERVICE.length), body);
    }
    if (url.pathname.startsWith(CONTAINER)) {
      const id = url.pathname.slice(CONTAINER.length);
      if (message.method === 'PUT') return this.#put(message, url, id, body);
      if (message.method === 'GET') return this.#get(url, id);
    }
    throw this.#unknown(`${message.method ?? ''} ${url.pathname}`);
  }

  #service(message: IncomingMessage, method: string, body: Buffer): Call {
    const scopes = this.#scopesOf(message);
    if (message.headers['content-type']?.startsWith('application/json') !== true) {
      throw this.#unknown(`content-type ${message.headers['content-type'] ?? ''}`);
    }
    const request = JSON.parse(body.toString()) as Record<string, unknown>;
    const text = (name: string): string => {
      const value = request[name];
      if (typeof value !== 'string' || value === '') throw new Refusal(400, `${name} is required`);
      return value;
    };
    const only = (...names: string[]): void => {
      for (const name of Object.keys(request))
        if (!names.includes(name)) throw this.#unknown(`field ${name} of ${method}`);
    };
    const [key, version] = [text('key'), text('version')];
    if (key.length > 512 || key.includes(',')) throw new Refusal(400, 'key is invalid');
    if (!/^[0-9a-f]{64}$/.test(version)) throw new Refusal(400, 'version is invalid');
    switch (method) {
      case 'CreateCacheEntry':
        only('key', 'version');
        return { what: 'reserve', key, isBlob: false, act: () => this.#reserve(key, version, scopes) };
      case 'FinalizeCacheEntryUpload':
        only('key', 'version', 'size_bytes');
        return {
          what: 'finalize',
          key,
          isBlob: false,
          act: () => this.#finalize(key, version, text('size_bytes'), scopes),
        };
      case 'GetCacheEntryDownloadURL': {
        only('key', 'version', 'restore_keys');
        const more = (request['restore_keys'] ?? []) as string[];
        return { what: 'lookup', key, isBlob: false, act: () => this.#lookup([key, ...more], version, scopes) };
      }
      default:
        throw this.#unknown(`method ${method}`);
    }
  }

  #scopesOf({ headers }: IncomingMessage): readonly CacheScope[] {
    const scopes = this.#tokens.get(headers.authorization?.replace(/^Bearer /, '') ?? '');
    if (scopes === undefined) throw new Refusal(401, 'the token is not one of this job');
    return scopes;
  }

  #reserve(key: string, version: string, scopes: readonly CacheScope[]): Reply {
    const scope = scopes.find(({ Permission }) => (Permission & 2) !== 0)?.Scope;
    if (scope === undefined)
      return { status: 200, body: { ok: false, message: 'cache write denied: token is read-only' } };
    if (this.isFull) throw new Refusal(403, 'insufficient usage to upload caches');
    if (this.#entries.some((one) => one.key === key && one.version === version && one.scope === scope)) {
      throw new Refusal(409, 'cache entry with the same key, version, and scope already exists');
    }
    const entry: CacheEntry = { id: ++this.#clock, key, version, scope, bytes: undefined, usedAt: this.#clock };
    this.#entries.push(entry);
    return { status: 200, body: { ok: true, signed_upload_url: this.#sign(entry, 'w') } };
  }

  #finalize(key: string, version: string, size: string, scopes: readonly CacheScope[]): Reply {
    const entry = this.#entries.find(
      (one) =>
        one.key === key &&
        one.version === version &&
        one.bytes === undefined &&
        scopes.some(({ Scope, Permission }) => Scope === one.scope && (Permission & 2) !== 0),
    );
    if (entry === undefined) throw new Refusal(404, 'no upload of this entry is under way');
    const upload = this.#uploads.get(String(entry.id));
    if (upload?.whole?.length !== Number(size)) {
      return {
        status: 200,
        body: { ok: false, message: `size mismatch: ${upload?.whole?.length ?? 0} were uploaded` },
      };
    }
    entry.bytes = upload.whole;
    entry.usedAt = ++this.#clock;
    if (this.newestBy === 'finalized') {
      this.#keep((one) => one !== entry);
      this.#entries.push(entry);
    }
    this.#uploads.delete(String(entry.id));
    this.#evictBeyondLimit();
    return { status: 200, body: { ok: true, entry_id: String(entry.id) } };
  }

  #evictBeyondLimit(): void {
    const sum = (): number => this.#entries.reduce((total, { bytes }) => total + (bytes?.length ?? 0), 0);
    while (sum() > this.limitBytes) {
      const oldest = this.#entries
        .filter(({ bytes }) => bytes !== undefined)
        .reduce((least, one) => (one.usedAt < least.usedAt ? one : least));
      this.#keep((one) => one !== oldest);
    }
  }

  #lookup(keys: readonly string[], version: string, scopes: readonly CacheScope[]): Reply {
    if (keys.length > 10) throw new Refusal(400, 'too many keys');
    for (const { Scope, Permission } of scopes) {
      if ((Permission & 1) === 0) continue;
      const there = this.#entries.filter((one) => one.bytes && one.version === version && one.scope === Scope);
      for (const key of keys) {
        const exact = there.find((one) => one.key === key);
        const entry = exact ?? there.filter((one) => one.key.startsWith(key)).at(-1);
        if (entry === undefined) continue;
        entry.usedAt = ++this.#clock;
        return {
          status: 200,
          body: { ok: true, signed_download_url: this.#sign(entry, 'r'), matched_key: entry.key },
        };
      }
    }
    return { status: 200, body: { ok: false } };
  }

  #sign({ id }: CacheEntry, permission: 'r' | 'w'): string {
    const sig = `${permission}${id}${SECRET}`;
    return `${this.#url}${CONTAINER}${id}?sv=2025-11-05&se=2100-01-01T00%3A00%3A00Z&sr=b&sp=${permission}&sig=${sig}`;
  }

  #checkSignature(url: URL, id: string, permission: 'r' | 'w'): CacheEntry {
    if (url.searchParams.get('sig') !== `${permission}${id}${SECRET}`) throw new Refusal(403, 'AuthenticationFailed');
    const entry = this.#entries.find((one) => String(one.id) === id);
    if (entry === undefined) throw new Refusal(404, 'BlobNotFound');
    return entry;
  }

  #put(message: IncomingMessage, url: URL, id: string, body: Buffer): Call {
    const entry = this.#checkSignature(url, id, 'w');
    const comp = url.searchParams.get('comp');
    for (const name of url.searchParams.keys()) {
      if (![...SIGNED, 'comp', 'blockid'].includes(name)) throw this.#unknown(`parameter ${name} of an upload`);
    }
    const upload = this.#uploads.get(id) ?? { blocks: new Map<string, Buffer>(), whole: undefined };
    const act = (): Reply => {
      this.#uploads.set(id, upload);
      if (comp === 'block') upload.blocks.set(url.searchParams.get('blockid') ?? '', body);
      else if (comp === 'blocklist') upload.whole = joined(upload, body.toString());
      else if (comp === null && message.headers['x-ms-blob-type'] === 'BlockBlob') upload.whole = body;
      else throw this.#unknown(`an upload with comp=${comp ?? ''} of ${String(message.headers['x-ms-blob-type'])}`);
      const headers = { etag: `"${id}"`, 'last-modified': new Date().toUTCString(), 'x-ms-request-id': id };
      return { status: 201, body: '', headers };
    };
    return { what: 'upload', key: entry.key, isBlob: true, act };
  }

  #get(url: URL, id: string): Call {
    const entry = this.#checkSignature(url, id, 'r');
    const act = (): Reply => ({ status: 200, body: entry.bytes ?? Buffer.alloc(0) });
    return { what: 'download', key: entry.key, isBlob: true, act };
  }

  #unknown(what: string): Refusal {
    this.violations.push(what);
    return new Refusal(501, `the fake does not know: ${what}`);
  }
}

const SECRET = randomBytes(12).toString('hex');
const SIGNED = ['sv', 'se', 'sr', 'sp', 'sig'];

interface Upload {
  readonly blocks: Map<string, Buffer>;
  whole: Buffer | undefined;
}

interface Reply {
  readonly status: number;
  readonly body: object | string | Buffer;
  readonly headers?: Record<string, string>;
}

interface Call extends CacheRequest {
  readonly isBlob: boolean;
  readonly act: () => Reply;
}

class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

function joined({ blocks }: Upload, xml: string): Buffer {
  const ids = [...xml.matchAll(/<(?:Latest|Uncommitted|Committed)>([^<]+)<\//gu)].map(([, id = '']) => id);
  return Buffer.concat(
    ids.map((id) => {
      const block = blocks.get(id);
      if (block === undefined) throw new Refusal(400, 'InvalidBlockList');
      return block;
    }),
  );
}

const CODES: Readonly<Record<number, string>> = {
  400: 'invalid_argument',
  401: 'unauthenticated',
  403: 'permission_denied',
  404: 'not_found',
  409: 'already_exists',
  429: 'resource_exhausted',
  501: 'unimplemented',
};

function twirpError(status: number, msg: string): object {
  return { code: CODES[status] ?? 'internal', msg };
}

function azureError(code: string, message: string): string {
  return `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`;
}

function answer(
  response: ServerResponse,
  status: number,
  body: object | string | Buffer,
  headers: Record<string, string> = {},
): void {
  const isJson = typeof body === 'object' && !Buffer.isBuffer(body);
  const bytes = isJson ? Buffer.from(JSON.stringify(body)) : Buffer.from(body);
  const type = isJson ? 'application/json' : typeof body === 'string' ? 'application/xml' : 'application/octet-stream';
  response.writeHead(status, { 'content-type': type, 'content-length': bytes.length, ...headers });
  response.end(bytes);
}

async function bodyOf(message: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of message as AsyncIterable<Buffer>) pieces.push(piece);
  return Buffer.concat(pieces);
}
