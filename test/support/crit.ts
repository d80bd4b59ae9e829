// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { scratchDir } from './stage.js';

/**
 * CRIU's own image tool, from the distribution's packages, unpacked beside the tests: nothing is installed. Decodes one
 * image file; throws with the tool's complaint when it does not read it.
 */
export function critDecode(path: string): { readonly magic: string; readonly entries: Record<string, unknown>[] } {
  const root = critRoot();
  const result = spawnSync('/usr/bin/python3', [join(root, 'usr/bin/crit'), 'decode', '-i', path], {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    timeout: 60_000,
    env: {
      PYTHONPATH: join(root, 'usr/lib/python3/dist-packages'),
      PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION: 'python',
      PYTHONDONTWRITEBYTECODE: '1',
    },
  });
  if (result.status !== 0) throw new Error(`crit decode ${path}: ${result.stderr}`);
  return JSON.parse(result.stdout) as ReturnType<typeof critDecode>;
}

function critRoot(): string {
  const dir = join(scratchDir(), 'crit');
  const root = join(dir, 'root');
  if (existsSync(root)) return root;
  mkdirSync(dir, { recursive: true });
  const download = ['-q', 'download', 'criu', 'python3-protobuf'];
  if (spawnSync('apt-get', download, { cwd: dir, timeout: 120_000 }).status !== 0) {
    // A machine whose package lists were never fetched, or are old.
    run(dir, 'apt-get', '-q', 'update');
    run(dir, 'apt-get', ...download);
  }
  for (const name of readdirSync(dir).filter((one) => one.endsWith('.deb'))) run(dir, 'dpkg-deb', '-x', name, root);
  return root;
}

function run(cwd: string, program: string, ...args: string[]): void {
  const result = spawnSync(program, args, { cwd, encoding: 'utf8', timeout: 120_000 });
  if (result.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${result.stderr}`);
}
