// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import { whyNotGood } from '../../../../src/criu/runtime/check.js';
import type { ToolResult } from '../../../../src/criu/runtime/tool.js';

const result = (stderr: string, more: Partial<ToolResult> = {}): ToolResult => ({
  ok: false,
  exitCode: 1,
  stdout: '',
  stderr,
  timedOut: false,
  missing: false,
  aborted: false,
  ...more,
});

const NETWORK = [
  'Error (criu/net.c:1253): net: Unexpected error: -1(Operation not permitted)',
  "Error (criu/cr-check.c:1056): Can't turn TCP repair mode ON: Operation not permitted",
  'Warn  (criu/cr-check.c:1680): Does not look good.',
].join('\n');

describe('whyNotGood', () => {
  it('is content with exit code 0', () => {
    expect(whyNotGood(result('', { ok: true }), true)).toBeUndefined();
  });

  it('overlooks the network only in a user namespace', () => {
    expect(whyNotGood(result(NETWORK), false)).toBeUndefined();
    expect(whyNotGood(result(NETWORK), true)).toContain('net: Unexpected error');
  });

  it('overlooks what a container of Docker’s kind lacks and jobs do not need', () => {
    const container = [
      'Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory',
      'Error (criu/cr-check.c:160): sys/kernel/ns_last_pid sysctl is inaccessible: Read-only file system',
      'Warn  (criu/cr-check.c:1674): Does not look good.',
    ].join('\n');
    for (const privileged of [true, false]) expect(whyNotGood(result(container), privileged)).toBeUndefined();
    expect(whyNotGood(result(container.replace('Read-only file system', 'Permission denied')), false)).toContain(
      'ns_last_pid',
    );
    expect(whyNotGood(result('Warn  (criu/cr-check.c:1674): Does not look good.'), true)).toBeDefined();
  });

  it('does not overlook anything beside the network', () => {
    const vdso = `Error (criu/vdso.c:1): vdso: Unexpected rt vDSO area bounds\n${NETWORK}`;
    expect(whyNotGood(result(vdso), false)).toContain('vDSO area bounds');
  });

  it('does not take a check that did not finish as good', () => {
    const unfinished = NETWORK.split('\n').slice(0, 2).join('\n');
    expect(whyNotGood(result(unfinished), false)).toBeDefined();
    expect(whyNotGood(result(NETWORK, { timedOut: true }), false)).toContain('in time');
  });

  it('asks for the loopback interface where CRIU cannot connect to itself', () => {
    const text = 'Error (criu/sockets.c:1): Unable to connect a socket: Network is unreachable';
    expect(whyNotGood(result(text), true)).toMatch(/Unable to connect a socket: .*\(is the loopback interface down\?/);
  });

  it('blames the namespace where none can be made', () => {
    const text = 'unshare: unshare failed: Operation not permitted';
    expect(whyNotGood(result(text), false)).toContain('no user namespace');
  });
});
