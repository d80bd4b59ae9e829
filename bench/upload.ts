// SPDX-License-Identifier: Apache-2.0
// Who is measured with an object store: fastfreeze, and what was typed before it: dump, pack, upload.
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  type Contestant,
  LOG,
  containerArguments,
  endRestored,
  fastfreezeTo,
  plainDump,
  plainRestore,
} from './contestants.js';
import { type Bench, mustEnd, start } from './jobs.js';
import type { S3Server } from './s3-server.js';

export const UPLOAD_OLD_WAY = 'dump to disk, tar | lz4 | aws s3 cp';

export function uploaders(): Contestant[] {
  const medium = fastfreezeTo('medium', {
    name: 'medium',
    urlOf: (bench) => `${serverOf(bench).url}/job`,
    storedBytes: (bench) => serverOf(bench).storedBytes(),
  });
  return hasAwsCli() ? [medium, withAwsCli()] : [medium];
}

function hasAwsCli(): boolean {
  try {
    execFileSync('aws', ['--version'], { stdio: 'ignore', timeout: 60_000 });
    return true;
  } catch {
    return false;
  }
}

function withAwsCli(): Contestant {
  const archive = (bench: Bench): string => `${serverOf(bench).url}/archive.tar.lz4`;
  return {
    name: UPLOAD_OLD_WAY,
    async dump(bench, app, watch) {
      const logPath = join(bench.memoryDirectory, LOG);
      const directory = join(bench.diskDirectory, 'criu');
      mkdirSync(directory);
      const script =
        'archive=$1 directory=$2; shift 2; "$@" && tar cf - -C "$directory" . | lz4 -1 -q - - | aws s3 cp --quiet - "$archive"';
      const words = ['sh', '-c', script, 'sh', archive(bench), directory, ...plainDump(bench, app, directory)];
      const child = start(words, { env: serverOf(bench).env, logPath });
      watch(child.pid);
      await mustEnd(child, UPLOAD_OLD_WAY, logPath);
    },
    prepareRestore(bench) {
      // Elsewhere, where the restore happens, there is the archive and nothing else.
      rmSync(join(bench.diskDirectory, 'criu'), { recursive: true });
      mkdirSync(join(bench.memoryDirectory, 'criu'));
    },
    restore(bench) {
      const directory = join(bench.memoryDirectory, 'criu');
      const script =
        'archive=$1 directory=$2; shift 2; aws s3 cp --quiet "$archive" - | lz4 -dcq | tar xf - -C "$directory" && exec unshare "$@"';
      const words = ['sh', '-c', script, 'sh', archive(bench), directory];
      return start([...words, ...containerArguments(bench), ...plainRestore(bench, directory)], {
        env: serverOf(bench).env,
        logPath: join(bench.memoryDirectory, LOG),
      });
    },
    endRestored,
    storedBytes: (bench) => serverOf(bench).storedBytes(),
  };
}

function serverOf(bench: Bench): S3Server {
  if (bench.server === undefined) throw new Error('there is no server');
  return bench.server;
}
