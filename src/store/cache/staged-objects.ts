// SPDX-License-Identifier: Apache-2.0
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { readAll } from '../file-io.js';
import { storeError, truncated } from '../store-error.js';
import type { AgentPool } from './agent-pool.js';

/** Beyond this, what was not read for longest goes, and is fetched again when it is wanted again. */
const MAX_STAGED_BYTES = 2 ** 30;

/** Brings the object to a path. */
export type Fetch = (path: string) => Promise<void>;

/** Entries can only be fetched whole: objects that are read lie in files, as many as a budget allows. */
export class StagedObjects {
  /** The one that was wanted last is the last. */
  private readonly staged = new Map<string, Staged>();

  constructor(
    private readonly pool: AgentPool,
    private readonly maxBytes = MAX_STAGED_BYTES,
  ) {}

  /** Fill `into`. An object that ends before that: `image` (truncated). */
  async read(key: string, fetch: Fetch, offset: number, into: Uint8Array): Promise<void> {
    await this.borrow(key, fetch, async ({ handle }) => {
      const got = await readAll(handle.fd, into, offset);
      if (got < into.length) throw truncated(key, offset + into.length, offset + got);
    });
  }

  async size(key: string, fetch: Fetch): Promise<number> {
    return await this.borrow(key, fetch, ({ sizeBytes }) => Promise.resolve(sizeBytes));
  }

  /** Not needed any more. Reads under way still end. */
  drop(key: string): void {
    const known = this.staged.get(key);
    this.staged.delete(key);
    if (known === undefined) return;
    known.isDropped = true;
    closeWhenIdle(known);
  }

  private async borrow<T>(key: string, fetch: Fetch, use: (file: StagedFile) => Promise<T>): Promise<T> {
    const mine = this.staged.get(key) ?? newStaged(this.bring(fetch));
    this.staged.delete(key);
    this.staged.set(key, mine);
    mine.readers++;
    try {
      const file = await mine.file;
      this.makeRoom();
      return await use(file);
    } catch (error) {
      // What could not be fetched is fetched anew when it is asked for again.
      if (mine.opened === undefined && this.staged.get(key) === mine) this.staged.delete(key);
      throw error;
    } finally {
      mine.readers--;
      closeWhenIdle(mine);
    }
  }

  private async bring(fetch: Fetch): Promise<StagedFile> {
    const path = await this.pool.enter();
    try {
      await fetch(path);
      const handle = await open(path, 'r');
      return { handle, sizeBytes: (await handle.stat()).size };
    } catch (error) {
      throw storeError(error, 'unpack', path);
    } finally {
      // It lives on as long as it is open, and no longer, whoever is killed.
      await unlink(path).catch(() => undefined);
      this.pool.leave();
    }
  }

  private makeRoom(): void {
    let total = 0;
    for (const { opened } of this.staged.values()) total += opened?.sizeBytes ?? 0;
    for (const [key, { opened, readers }] of this.staged) {
      if (total <= this.maxBytes) return;
      if (opened === undefined || readers > 0) continue;
      total -= opened.sizeBytes;
      this.drop(key);
    }
  }
}

interface StagedFile {
  readonly handle: FileHandle;
  readonly sizeBytes: number;
}

interface Staged {
  readonly file: Promise<StagedFile>;
  /** Once it is there. */
  opened: StagedFile | undefined;
  readers: number;
  isDropped: boolean;
}

function newStaged(file: Promise<StagedFile>): Staged {
  const staged: Staged = { file, opened: undefined, readers: 0, isDropped: false };
  file.then(
    (opened) => (staged.opened = opened),
    () => undefined,
  );
  return staged;
}

/** A descriptor closed under a running read could by then be another file's. */
function closeWhenIdle(staged: Staged): void {
  if (!staged.isDropped || staged.readers > 0 || staged.opened === undefined) return;
  const { handle } = staged.opened;
  staged.opened = undefined;
  handle.close().catch(() => undefined);
}
