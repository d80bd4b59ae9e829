// SPDX-License-Identifier: Apache-2.0
// Connections: the machine's firewall is never touched for them, and those to UNIX sockets outside of the job are closed by a restore.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { checkLines } from '../support/lines.js';
import { descendantsOf } from '../support/processes.js';
import { fastfreeze, fixture, PYTHON } from '../support/stage.js';
import { until } from '../support/until.js';

const url = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];

/** Tables of nftables in the network namespace of a process; iptables of today make such too. */
function firewallTables(pid: number | 'self'): string[] {
  const words = [`--net=/proc/${pid}/ns/net`, PYTHON, fixture('nft-tables.py')];
  const result = spawnSync('nsenter', words, { encoding: 'utf8', timeout: 30_000 });
  if (result.status !== 0) throw new Error(`nft-tables.py: ${result.stderr}`);
  return result.stdout.split('\n').filter((name) => name !== '');
}

const locks = (pid: number | 'self'): string[] => firewallTables(pid).filter((name) => /criu/i.test(name));

/** TCP ports that a process, or one below it, listens on. */
function listeningPorts(pid: number): number[] {
  return [pid, ...descendantsOf(pid)].flatMap((one) => {
    try {
      const links = readdirSync(`/proc/${one}/fd`).map((fd) => readlinkSync(`/proc/${one}/fd/${fd}`));
      const inodes = links.map((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1]);
      const rows = readFileSync(`/proc/${one}/net/tcp`, 'utf8')
        .split('\n')
        .map((line) => line.trim().split(/\s+/));
      const listening = rows.filter(([, , , state, , , , , , inode]) => state === '0A' && inodes.includes(inode));
      return listening.map(([, local = '']) => Number.parseInt(local.split(':')[1] ?? '', 16));
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}

/** A program that ends when its stdin does; resolves once it has said a word. */
async function withProgram(
  words: readonly string[],
  word: string,
  action: (child: ChildProcess, said: () => string) => Promise<void>,
): Promise<void> {
  const [program = '', ...args] = words;
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('close', resolve));
  let said = '';
  child.stdout.on('data', (data: Buffer) => (said += data.toString()));
  try {
    await until(`${word} of ${program}`, () => said.includes(word), 15_000);
    await action(child, () => said);
  } finally {
    child.stdin.end();
    await ended;
  }
}

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    test('established connections: no firewall rule is left by a checkpoint, a stop and a restore, nor by failed ones', async () => {
      await withBed(identity, async (bed) => {
        // A user's job has no say in the network of the machine; root's gets a network of its own, where a rule would be seen alone.
        const own = ['unshare', '--net', 'sh', '-c', 'ip link set lo up; echo ready; exec cat'];
        await withProgram(identity === 'root' ? own : ['sh', '-c', 'echo ready; exec cat'], 'ready', async (holder) => {
          const pid = holder.pid ?? 0;
          const within = identity === 'root' ? ['nsenter', `--net=/proc/${pid}/ns/net`] : [];
          const command = [PYTHON, fixture('tcp.py'), bed.path('stop')];
          const options = [...url(bed), '--cpu-budget', 'low'];
          // Before the job: its container does not see what is mounted later.
          const small = bed.tmpfs('small', 1 << 20);
          const first = bed.run(await bed.place(), options, command, { within });
          await first.prints(/answers/);
          await first.commits(['--leave-running']);
          expect(locks(pid)).toEqual([]);
          await first.progresses(3);
          const failed = await first.checkpoint(['--image-url', `file:${small}/image`]);
          expect(failed).toMatchObject({ code: 170, stderr: expect.stringContaining('no space') as unknown });
          expect(locks(pid)).toEqual([]);
          await first.progresses(3);
          const [port = 0] = listeningPorts(first.pid);
          await first.freeze();
          expect(locks(pid)).toEqual([]);
          const occupy = `import socket; s = socket.create_server(('127.0.0.1', ${port})); print('taken', flush=True); input()`;
          await withProgram([...within, PYTHON, '-c', occupy], 'taken', async () => {
            const refused = bed.run(await bed.place(), options, command, { within });
            expect(await refused.ends()).toMatchObject({ code: 171 });
            expect(refused.stderr).toMatch(/a TCP or UDP port that the application listens on is in use here/);
            expect(locks(pid)).toEqual([]);
          });
          const second = bed.run(await bed.place(), options, command, { within });
          await second.ready('restored');
          expect(locks(pid)).toEqual([]);
          await second.progresses(3);
          if (identity === 'root') {
            // It would be seen: a lock that is asked for stays after a stop, for the restore that lifts it.
            await second.freeze([], { env: { CRIU_OPTS: '--network-lock nftables' } });
            expect(locks(pid)).toHaveLength(1);
          } else {
            bed.write('stop', '');
            expect(await second.ends()).toMatchObject({ code: 0 });
            checkLines(first.stdout + second.stdout);
          }
        });
      });
    }, 120_000);

    test('connections to UNIX sockets outside are closed by a restore, and the application goes on', async () => {
      await withBed(identity, async (bed) => {
        const directory = bed.directory('outside');
        const at = (name: string, kind = name): string => `${kind}=${directory}/${name}`;
        const server = [PYTHON, fixture('outside-server.py')];
        const stays = [...server, at('stream'), at('seqpacket'), at('datagram'), `stream=@${directory}`];
        await withProgram(stays, 'listening', async (_, said) => {
          const command = [PYTHON, fixture('outside.py'), bed.path('stop'), directory];
          const first = bed.run(await bed.place(), url(bed), command);
          await withProgram([...server, at('gone', 'datagram')], 'listening', async () => {
            await first.prints(/round/);
            await first.commits(['--leave-running']);
            await first.progresses(3);
            const frozen = await first.freeze(['--json']);
            const note = /5 UNIX sockets of the application \(process 1000, descriptor \d+\) lead to processes outside/;
            expect(frozen.stderr).toMatch(new RegExp(`^Note: ${note.source}`, 'm'));
            const { advice } = JSON.parse(frozen.stdout) as { advice: string[] };
            expect(advice).toEqual([expect.stringMatching(note)]);
          });
          expect(first.stdout).not.toMatch(/closed/);
          const before = said().length;
          const second = bed.run(await bed.place(), url(bed), command);
          await second.ready('restored');
          await second.prints(/closed gone/);
          await second.prints(/again abstract/);
          for (const name of ['stream', 'seqpacket', 'abstract']) expect(second.stdout).toMatch(`again ${name}`);
          // Datagrams went on where somebody listens.
          expect(second.stdout).not.toMatch(/closed datagram/);
          expect(said().slice(before)).toMatch(/got to datagram/);
          await second.freeze();
          const third = bed.run(await bed.place(), url(bed), command);
          await third.prints(/again abstract/);
          bed.write('stop', '');
          expect(await third.ends()).toMatchObject({ code: 0 });
          checkLines(first.stdout + second.stdout + third.stdout);
        });
      });
    }, 120_000);

    test('a checkpoint that the job asks for itself is refused, and the job goes on', async () => {
      await withBed(identity, async (bed) => {
        const ask = [...fastfreeze(), 'checkpoint', '--leave-running'].map((word) => `'${word}'`).join(' ');
        const job = bed.run(await bed.place(), url(bed), ['sh', '-c', `${ask}; echo "code $?"`]);
        expect(await job.ends()).toMatchObject({ code: 0 });
        expect(job.stdout).toBe('code 170\n');
        expect(job.stderr).toMatch(
          /process \d+ \(.*\): it is a fastfreeze that was started within the job.*\nTry: ask /,
        );
      });
    }, 60_000);
  });
}
