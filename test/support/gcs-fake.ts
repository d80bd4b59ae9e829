// SPDX-License-Identifier: Apache-2.0
import { createHash, randomBytes, type Hash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { crc32c, encodeCrc32c } from './crc32c.js';

/** What a test may do to a request: answer it with an error, or break the connection at a chosen moment. */
export type Fault =
  | { readonly kind: 'answer'; readonly status: number; readonly reason?: string; readonly message?: string }
  /** The connection is reset before anything is done. */
  | { readonly kind: 'reset' }
  /** Nothing is done, and nothing said, until the connection ends. */
  | { readonly kind: 'hang' }
  /** Everything is done; the connection is reset instead of the answer. */
  | { readonly kind: 'lose-answer' }
  /** A download ends after so many bytes of its body. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** A resumable upload keeps only so many bytes of what it is sent. */
  | { readonly kind: 'keep'; readonly bytes: number }
  /** A download's or upload's bytes are changed on their way. */
  | { readonly kind: 'flip' };

export interface SeenRequest {
  readonly method: string;
  /** Decoded, without the prefix that the JSON API has where no emulator is named. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: IncomingMessage['headers'];
}

export interface StoredObject {
  readonly name: string;
  readonly bytes: Buffer;
  readonly generation: number;
  readonly metageneration: number;
  readonly md5: string;
  readonly crc32c: string;
  readonly contentType: string;
  readonly storageClass: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly kmsKeyName: string | undefined;
  readonly updated: string;
}

export interface BucketOptions {
  /** Every request must name a project that pays. */
  readonly requesterPays?: boolean;
}

/** Names of objects that a list answers at most, whatever is asked for. */
const MAX_PAGE = 1000;
const CHUNK_UNIT = 256 << 10;

/**
 * Google Cloud Storage's JSON API, as far as fastfreeze and its SDK speak it, and not an inch further: a request, parameter
 * or header that it does not know is answered with 501 and kept in `violations`, which `stop` throws. So a test cannot
 * pass by something that the fake silently let go.
 */
export class GcsFake {
  readonly requests: SeenRequest[] = [];
  readonly violations: string[] = [];
  /** Objects per page of a list. */
  pageSize = MAX_PAGE;
  /** Asked once per request. */
  fault: (request: SeenRequest) => Fault | undefined = () => undefined;
  readonly #buckets = new Map<string, Bucket>();
  readonly #sessions = new Map<string, Session>();
  #generation = Date.now() * 1000;
  #url = '';

  private constructor(private readonly server: Server) {}

  static async start(): Promise<GcsFake> {
    const server = createServer();
    // An upload of a stopped job may keep its connection; a test must not wait for it.
    server.keepAliveTimeout = 2_000;
    const fake = new GcsFake(server);
    server.on('request', (request, response) => void fake.#serve(request, response));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    fake.#url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return fake;
  }

  get url(): string {
    return this.#url;
  }

  /** What a program needs to speak to it. */
  get env(): Readonly<Record<string, string>> {
    return { STORAGE_EMULATOR_HOST: this.#url };
  }

  makeBucket(name: string, options: BucketOptions = {}): void {
    this.#buckets.set(name, { name, options, objects: new Map() });
  }

  object(bucket: string, name: string): StoredObject | undefined {
    return this.#buckets.get(bucket)?.objects.get(name);
  }

  names(bucket: string): string[] {
    return [...(this.#buckets.get(bucket)?.objects.keys() ?? [])].sort();
  }

  /** Sessions that were begun and neither finished nor called off. */
  get openSessions(): number {
    return [...this.#sessions.values()].filter((session) => session.object === undefined && !session.cancelled).length;
  }

  /** Throws what it was asked and did not know. */
  check(): void {
    if (this.violations.length > 0) throw new Error(`unknown to the fake of GCS:\n  ${this.violations.join('\n  ')}`);
  }

  async stop(): Promise<void> {
    await this.halt();
    this.check();
  }

  /** The server dies; what it has stored, and the sessions of uploads, are on its disks. */
  async halt(): Promise<void> {
    if (!this.server.listening) return;
    const closed = once(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    await closed;
  }

  /** It is started again, where it was. */
  async restart(): Promise<void> {
    if (this.server.listening) return;
    this.server.listen(Number(new URL(this.#url).port), '127.0.0.1');
    await once(this.server, 'listening');
  }

  async #serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const request = seen(message);
    this.requests.push(request);
    const fault = this.fault(request);
    try {
      if (fault?.kind === 'reset') return void message.socket.destroy();
      if (fault?.kind === 'hang') return;
      if (fault?.kind === 'answer') {
        await drain(message);
        throw new Refusal(fault.status, fault.reason ?? 'injected', fault.message ?? 'injected by a test');
      }
      const answer = await this.#answer(request, message, fault);
      if (fault?.kind === 'lose-answer') return void message.socket.destroy();
      await reply(response, answer, fault);
    } catch (error) {
      if (message.destroyed && !message.complete) return;
      if (!message.complete) await drain(message).catch(() => undefined);
      const refusal = error instanceof Refusal ? error : new Refusal(500, 'backendError', String(error));
      if (!(error instanceof Refusal)) this.violations.push(`${request.method} ${request.path}: ${String(error)}`);
      await reply(response, { status: refusal.status, json: refusal.json }, undefined);
    }
  }

  async #answer(request: SeenRequest, message: IncomingMessage, fault: Fault | undefined): Promise<Reply> {
    this.#onlyKnown(request, 'header', Object.keys(request.headers), KNOWN_HEADERS);
    const { method } = request;
    const at = /^\/b(?:\/([^/]+)(?:\/o(?:\/(.+))?)?)?$/su.exec(request.path);
    const upload = /^\/upload\/storage\/v1\/b\/([^/]+)\/o$/u.exec(request.path);
    if (upload !== null) return await this.#upload(request, message, upload[1] ?? '', fault);
    const [, bucketName, name] = at ?? [];
    if (at === null) throw this.#unknown(request, 'request');
    if (bucketName === undefined) {
      if (method !== 'POST') throw this.#unknown(request, 'request');
      this.#params(request, ['project']);
      return this.#newBucket(await jsonOf(message));
    }
    const bucket = this.#bucket(bucketName, request);
    if (name !== undefined) return this.#objectRequest(request, bucket, name);
    if (method !== 'GET') throw this.#unknown(request, 'request');
    if (!request.path.endsWith('/o')) {
      this.#params(request, []);
      return { status: 200, json: { kind: 'storage#bucket', name: bucket.name } };
    }
    return this.#list(request, bucket);
  }

  #newBucket(body: Readonly<Record<string, unknown>>): Reply {
    const name = String(body['name']);
    if (this.#buckets.has(name)) throw new Refusal(409, 'conflict', 'You already own this bucket.');
    this.makeBucket(name);
    return { status: 200, json: { kind: 'storage#bucket', name } };
  }

  #objectRequest(request: SeenRequest, bucket: Bucket, name: string): Reply {
    const { method, query } = request;
    if (method !== 'GET' && method !== 'DELETE') throw this.#unknown(request, 'request');
    this.#params(request, [...CONDITIONS, ...(method === 'GET' ? ['alt'] : [])]);
    const object = bucket.objects.get(name);
    meet(query, object);
    if (object === undefined) throw new Refusal(404, 'notFound', `No such object: ${bucket.name}/${name}`);
    if (method === 'DELETE') {
      bucket.objects.delete(name);
      return { status: 204 };
    }
    if (query['alt'] === 'media') return download(object, request.headers.range);
    if (query['alt'] !== undefined && query['alt'] !== 'json') throw this.#unknown(request, `alt=${query['alt']}`);
    return { status: 200, json: resource(bucket, object) };
  }

  #list(request: SeenRequest, bucket: Bucket): Reply {
    this.#params(request, ['prefix', 'delimiter', 'maxResults', 'pageToken', 'fields']);
    const { prefix = '', delimiter, maxResults, pageToken, fields } = request.query;
    // Partial responses: only these fields, which are all that is ever asked for.
    if (fields !== undefined && fields !== 'items(name),nextPageToken') {
      throw this.#unknown(request, `fields=${fields}`);
    }
    const describe = (object: StoredObject): Json =>
      fields === undefined ? resource(bucket, object) : { name: object.name };
    const kind = fields === undefined ? { kind: 'storage#objects' } : {};
    if (delimiter !== undefined && delimiter !== '/') throw this.#unknown(request, `delimiter=${delimiter}`);
    const size = Math.min(Number(maxResults ?? MAX_PAGE), this.pageSize);
    const after = pageToken === undefined ? '' : Buffer.from(pageToken, 'base64').toString();
    const items: Json[] = [];
    const prefixes = new Set<string>();
    let last = '';
    for (const name of [...bucket.objects.keys()].sort()) {
      if (!name.startsWith(prefix)) continue;
      const slash = delimiter === undefined ? -1 : name.indexOf('/', prefix.length);
      const entry = slash === -1 ? name : name.slice(0, slash + 1);
      if (entry <= after || prefixes.has(entry)) continue;
      if (items.length + prefixes.size === size) {
        const json = { ...kind, nextPageToken: Buffer.from(last).toString('base64') };
        return { status: 200, json: { ...json, ...listing(items, prefixes) } };
      }
      last = entry;
      const object = bucket.objects.get(name);
      if (slash !== -1) prefixes.add(entry);
      else if (object !== undefined) items.push(describe(object));
    }
    return { status: 200, json: { ...kind, ...listing(items, prefixes) } };
  }

  async #upload(
    request: SeenRequest,
    message: IncomingMessage,
    bucketName: string,
    fault: Fault | undefined,
  ): Promise<Reply> {
    const { method, query } = request;
    const { uploadType, upload_id: id } = query;
    if (id !== undefined) {
      this.#onlyKnown(request, 'parameter', Object.keys(query), new Set(['uploadType', 'upload_id', 'name']));
      const session = this.#sessions.get(id);
      if (session === undefined) throw new Refusal(404, 'notFound', 'No such upload session.');
      if (session.cancelled) throw new Refusal(session.object === undefined ? 499 : 404, 'notFound', 'Cancelled.');
      if (method === 'DELETE') {
        session.cancelled = true;
        return { status: 499 };
      }
      if (method !== 'PUT') throw this.#unknown(request, 'request');
      return await this.#resume(request, message, session, fault);
    }
    const bucket = this.#bucket(bucketName, request);
    if (method !== 'POST') throw this.#unknown(request, 'request');
    if (uploadType === 'multipart') return await this.#multipart(request, message, bucket, fault);
    if (uploadType === 'resumable') return await this.#begin(request, message, bucket);
    throw this.#unknown(request, `uploadType=${uploadType ?? ''}`);
  }

  async #multipart(
    request: SeenRequest,
    message: IncomingMessage,
    bucket: Bucket,
    fault: Fault | undefined,
  ): Promise<Reply> {
    this.#params(request, ['uploadType', 'name', 'kmsKeyName', ...CONDITIONS]);
    const boundary = /^multipart\/related; boundary=(.+)$/u.exec(request.headers['content-type'] ?? '')?.[1];
    if (boundary === undefined) throw this.#unknown(request, 'content-type');
    const [meta, media] = splitParts(await bodyOf(message), boundary);
    if (meta === undefined || media === undefined) throw new Refusal(400, 'invalid', 'Malformed multipart body.');
    const wanted = this.#wanted(request, JSON.parse(meta.toString()) as Json);
    if (fault?.kind === 'flip') flip(media);
    const sum = new Sum();
    sum.add(media);
    return { status: 200, json: resource(bucket, this.#finalise(request, bucket, wanted, [media], sum)) };
  }

  async #begin(request: SeenRequest, message: IncomingMessage, bucket: Bucket): Promise<Reply> {
    this.#params(request, ['uploadType', 'name', 'kmsKeyName', ...CONDITIONS]);
    const wanted = this.#wanted(request, await jsonOf(message));
    meet(request.query, bucket.objects.get(wanted.name));
    const id = randomBytes(16).toString('hex');
    const contentType = request.headers['x-upload-content-type'];
    this.#sessions.set(id, {
      bucket,
      request,
      wanted: { ...wanted, ...(typeof contentType === 'string' ? { contentType } : {}) },
      pieces: [],
      bytes: 0,
      sum: new Sum(),
      object: undefined,
      cancelled: false,
    });
    // Named as the client knows the service: it may be behind something.
    const location = `http://${String(request.headers.host)}/upload/storage/v1/b/${bucket.name}/o?uploadType=resumable&upload_id=${id}`;
    return { status: 200, headers: { location, 'x-guploader-uploadid': id } };
  }

  async #resume(
    request: SeenRequest,
    message: IncomingMessage,
    session: Session,
    fault: Fault | undefined,
  ): Promise<Reply> {
    const range = request.headers['content-range'] ?? '';
    const [, from, to, total] = /^bytes (?:\*|(\d+)-(\d+|\*))\/(\d+|\*)$/u.exec(range) ?? [];
    if (total === undefined) throw this.#unknown(request, `content-range: ${range}`);
    const body = await bodyOf(message);
    if (session.object !== undefined) return { status: 200, json: resource(session.bucket, session.object) };
    const isWhole = to === '*';
    if (from === undefined && body.length > 0) throw new Refusal(400, 'invalid', 'A status query has no body.');
    if (from !== undefined) {
      const start = Number(from);
      if (!isWhole && body.length !== Number(to) - start + 1) {
        throw new Refusal(400, 'invalid', `Content-Range ${range} with ${body.length} bytes.`);
      }
      if (start > session.bytes) throw new Refusal(503, 'backendError', 'Bytes in between are missing.');
      if (!isWhole && total === '*' && body.length % CHUNK_UNIT !== 0) {
        throw new Refusal(400, 'invalid', 'Chunks but the last must be multiples of 256 KiB.');
      }
      const fresh = body.subarray(session.bytes - start);
      const kept = fault?.kind === 'keep' ? fresh.subarray(0, fault.bytes) : fresh;
      if (fault?.kind === 'flip') flip(kept);
      session.pieces.push(kept);
      session.bytes += kept.length;
      session.sum.add(kept);
    }
    const isComplete = isWhole ? fault?.kind !== 'keep' : total !== '*' && session.bytes === Number(total);
    if (!isComplete) {
      if (total !== '*' && session.bytes > Number(total))
        throw new Refusal(400, 'invalid', 'More bytes than announced.');
      return {
        status: 308,
        headers: session.bytes === 0 ? {} : { range: `bytes=0-${session.bytes - 1}` },
      };
    }
    const hashes = request.headers['x-goog-hash'];
    const wanted = { ...session.wanted, ...(typeof hashes === 'string' ? this.#hashes(request, hashes) : {}) };
    // The condition again: somebody may have made the object since the session began.
    session.object = this.#finalise(session.request, session.bucket, wanted, session.pieces, session.sum);
    return { status: 200, json: resource(session.bucket, session.object) };
  }

  #hashes(request: SeenRequest, header: string): { md5Hash?: string; crc32c?: string } {
    const found: { md5Hash?: string; crc32c?: string } = {};
    for (const pair of header.split(',')) {
      const [, kind, value] = /^\s*(md5|crc32c)=(.+)$/u.exec(pair) ?? [];
      if (kind === undefined || value === undefined) throw this.#unknown(request, `x-goog-hash: ${header}`);
      found[kind === 'md5' ? 'md5Hash' : 'crc32c'] = value;
    }
    return found;
  }

  #wanted(request: SeenRequest, body: Json): Wanted {
    this.#onlyKnown(request, 'field', Object.keys(body), KNOWN_FIELDS);
    const { name = request.query['name'], contentType, storageClass, metadata, md5Hash, crc32c: sum } = body;
    if (typeof name !== 'string' || name === '') throw new Refusal(400, 'required', 'Required: name');
    const classes = ['STANDARD', 'NEARLINE', 'COLDLINE', 'ARCHIVE'];
    if (storageClass !== undefined && !classes.some((one) => one === storageClass)) {
      throw new Refusal(400, 'invalid', `Invalid storage class ${JSON.stringify(storageClass)}`);
    }
    return {
      name,
      contentType: typeof contentType === 'string' ? contentType : 'application/octet-stream',
      storageClass: typeof storageClass === 'string' ? storageClass : 'STANDARD',
      metadata: (metadata ?? {}) as Record<string, string>,
      ...(typeof md5Hash === 'string' ? { md5Hash } : {}),
      ...(typeof sum === 'string' ? { crc32c: sum } : {}),
    };
  }

  #finalise(request: SeenRequest, bucket: Bucket, wanted: Wanted, pieces: readonly Buffer[], sum: Sum): StoredObject {
    meet(request.query, bucket.objects.get(wanted.name));
    const { md5, crc } = sum.result();
    if (wanted.md5Hash !== undefined && wanted.md5Hash !== md5) {
      const message = `Provided MD5 hash "${wanted.md5Hash}" doesn't match calculated MD5 hash "${md5}".`;
      throw new Refusal(400, 'invalid', message);
    }
    if (wanted.crc32c !== undefined && wanted.crc32c !== crc) {
      const message = `Provided CRC32C "${wanted.crc32c}" doesn't match calculated CRC32C "${crc}".`;
      throw new Refusal(400, 'invalid', message);
    }
    const object: StoredObject = {
      name: wanted.name,
      bytes: Buffer.concat(pieces),
      generation: ++this.#generation,
      metageneration: 1,
      md5,
      crc32c: crc,
      contentType: wanted.contentType,
      storageClass: wanted.storageClass,
      metadata: wanted.metadata,
      kmsKeyName: request.query['kmsKeyName'],
      updated: new Date().toISOString(),
    };
    bucket.objects.set(object.name, object);
    return object;
  }

  #bucket(name: string, request: SeenRequest): Bucket {
    const bucket = this.#buckets.get(name);
    if (bucket === undefined) throw new Refusal(404, 'notFound', 'The specified bucket does not exist.');
    if (bucket.options.requesterPays === true && request.query['userProject'] === undefined) {
      const message = 'Bucket is a requester pays bucket but no user project provided.';
      throw new Refusal(400, 'required', message);
    }
    return bucket;
  }

  #params(request: SeenRequest, known: readonly string[]): void {
    this.#onlyKnown(
      request,
      'parameter',
      Object.keys(request.query),
      new Set([...known, 'userProject', 'prettyPrint']),
    );
  }

  #onlyKnown(request: SeenRequest, what: string, names: readonly string[], known: ReadonlySet<string>): void {
    for (const name of names) if (!known.has(name)) throw this.#unknown(request, `${what} ${name}`);
  }

  #unknown({ method, path, query }: SeenRequest, what: string): Refusal {
    this.violations.push(`${what} (${method} ${path} ${JSON.stringify(query)})`);
    return new Refusal(501, 'notImplemented', `the fake does not know: ${what}`);
  }
}

type Json = Readonly<Record<string, unknown>>;

interface Bucket {
  readonly name: string;
  readonly options: BucketOptions;
  readonly objects: Map<string, StoredObject>;
}

interface Wanted {
  readonly name: string;
  readonly contentType: string;
  readonly storageClass: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly md5Hash?: string;
  readonly crc32c?: string;
}

interface Session {
  readonly bucket: Bucket;
  /** Whose conditions count, now and when the object is made. */
  readonly request: SeenRequest;
  readonly wanted: Wanted;
  readonly pieces: Buffer[];
  bytes: number;
  readonly sum: Sum;
  object: StoredObject | undefined;
  cancelled: boolean;
}

interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  readonly bytes?: Buffer;
}

class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    message: string,
  ) {
    super(message);
  }

  get json(): unknown {
    const { status: code, reason, message } = this;
    return { error: { code, message, errors: [{ reason, message, domain: 'global' }] } };
  }
}

class Sum {
  readonly #md5: Hash = createHash('md5');
  #crc = 0;

  add(bytes: Uint8Array): void {
    this.#md5.update(bytes);
    this.#crc = crc32c(bytes, this.#crc);
  }

  result(): { readonly md5: string; readonly crc: string } {
    return { md5: this.#md5.copy().digest('base64'), crc: encodeCrc32c(this.#crc) };
  }
}

const CONDITIONS = ['ifGenerationMatch', 'ifGenerationNotMatch', 'ifMetagenerationMatch'];
const KNOWN_FIELDS = new Set(['name', 'contentType', 'storageClass', 'metadata', 'md5Hash', 'crc32c']);
const KNOWN_HEADERS = new Set([
  ...['accept', 'accept-encoding', 'cache-control', 'connection', 'content-length', 'content-range', 'content-type'],
  ...['host', 'range', 'transfer-encoding', 'user-agent', 'x-goog-api-client', 'x-goog-hash'],
  ...['x-upload-content-length', 'x-upload-content-type'],
  // Of Node's fetch, by which tests ask.
  ...['accept-language', 'sec-fetch-mode'],
]);

function seen(message: IncomingMessage): SeenRequest {
  const url = new URL(message.url ?? '/', 'http://fake');
  // Named as an emulator, the SDK leaves this out; named as an endpoint, it does not.
  const path = url.pathname.replace(/^\/storage\/v1(?=\/b(?:\/|$))/u, '');
  return {
    method: message.method ?? '',
    path: decodeURIComponent(path),
    query: Object.fromEntries(url.searchParams),
    headers: message.headers,
  };
}

/** Conditions of a request, on the object as it is now. */
function meet(query: SeenRequest['query'], object: StoredObject | undefined): void {
  const { ifGenerationMatch, ifGenerationNotMatch, ifMetagenerationMatch } = query;
  const generation = String(object?.generation ?? 0);
  const isMet =
    (ifGenerationMatch === undefined || ifGenerationMatch === generation) &&
    (ifGenerationNotMatch === undefined || ifGenerationNotMatch !== generation) &&
    (ifMetagenerationMatch === undefined || ifMetagenerationMatch === String(object?.metageneration ?? 0));
  if (!isMet) {
    throw new Refusal(412, 'conditionNotMet', 'At least one of the pre-conditions you specified did not hold.');
  }
}

function resource(bucket: Bucket, object: StoredObject): Json {
  return {
    kind: 'storage#object',
    id: `${bucket.name}/${object.name}/${object.generation}`,
    name: object.name,
    bucket: bucket.name,
    generation: String(object.generation),
    metageneration: String(object.metageneration),
    contentType: object.contentType,
    storageClass: object.storageClass,
    size: String(object.bytes.length),
    md5Hash: object.md5,
    crc32c: object.crc32c,
    etag: Buffer.from(String(object.generation)).toString('base64'),
    timeCreated: object.updated,
    updated: object.updated,
    ...(Object.keys(object.metadata).length === 0 ? {} : { metadata: object.metadata }),
    ...(object.kmsKeyName === undefined ? {} : { kmsKeyName: `${object.kmsKeyName}/cryptoKeyVersions/1` }),
  };
}

function listing(items: readonly Json[], prefixes: ReadonlySet<string>): Json {
  // As the service, which leaves out what is empty.
  return {
    ...(items.length === 0 ? {} : { items }),
    ...(prefixes.size === 0 ? {} : { prefixes: [...prefixes] }),
  };
}

function download(object: StoredObject, range: string | undefined): Reply {
  const headers = {
    'content-type': object.contentType,
    'x-goog-hash': `crc32c=${object.crc32c},md5=${object.md5}`,
    'x-goog-generation': String(object.generation),
    'x-goog-metageneration': String(object.metageneration),
    'x-goog-storage-class': object.storageClass,
    'x-goog-stored-content-encoding': 'identity',
    'x-goog-stored-content-length': String(object.bytes.length),
  };
  const size = object.bytes.length;
  if (range === undefined) return { status: 200, headers, bytes: object.bytes };
  const [, from, to] = /^bytes=(\d*)-(\d*)$/u.exec(range) ?? [];
  if (from === undefined || to === undefined || (from === '' && to === '')) {
    return { status: 200, headers, bytes: object.bytes };
  }
  const start = from === '' ? Math.max(0, size - Number(to)) : Number(from);
  const end = from === '' || to === '' ? size : Math.min(size, Number(to) + 1);
  if (start >= size || end <= start) {
    throw new Refusal(416, 'requestedRangeNotSatisfiable', 'The requested range cannot be satisfied.');
  }
  const part = { 'content-range': `bytes ${start}-${end - 1}/${size}` };
  return { status: 206, headers: { ...headers, ...part }, bytes: object.bytes.subarray(start, end) };
}

async function reply(response: ServerResponse, answer: Reply, fault: Fault | undefined): Promise<void> {
  const isJson = answer.json !== undefined;
  const body = isJson ? Buffer.from(JSON.stringify(answer.json)) : (answer.bytes ?? Buffer.alloc(0));
  const bytes = fault?.kind === 'flip' && answer.bytes !== undefined ? flip(Buffer.from(body)) : body;
  response.writeHead(answer.status, {
    ...(isJson ? { 'content-type': 'application/json; charset=UTF-8' } : {}),
    ...answer.headers,
    ...(answer.status === 204 ? {} : { 'content-length': bytes.length }),
  });
  if (fault?.kind === 'cut') {
    response.write(bytes.subarray(0, fault.afterBytes), () => response.socket?.destroy());
    return;
  }
  await new Promise<void>((resolve) => {
    response.once('close', resolve);
    response.end(bytes);
  });
}

function flip(bytes: Buffer): Buffer {
  const at = bytes.length >> 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
}

async function bodyOf(message: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of message as AsyncIterable<Buffer>) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function drain(message: IncomingMessage): Promise<void> {
  await bodyOf(message);
}

async function jsonOf(message: IncomingMessage): Promise<Json> {
  const text = (await bodyOf(message)).toString();
  return text === '' ? {} : (JSON.parse(text) as Json);
}

/** The bodies of a multipart message's parts. */
function splitParts(body: Buffer, boundary: string): Buffer[] {
  const parts: Buffer[] = [];
  const mark = Buffer.from(`--${boundary}`);
  for (let at = body.indexOf(mark); at !== -1;) {
    const next = body.indexOf(mark, at + mark.length);
    if (next === -1) break;
    const head = body.indexOf('\r\n\r\n', at);
    parts.push(body.subarray(head + 4, next - 2));
    at = next;
  }
  return parts;
}
