// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import { runTool, whyFailed } from '../../../../src/criu/runtime/tool.js';

describe('runTool', () => {
  it('keeps both outputs and the exit code', async () => {
    const result = await runTool(['sh', '-c', 'echo out; echo err >&2; exit 3'], { timeoutMs: 5000 });
    expect(result).toMatchObject({ ok: false, exitCode: 3, stdout: 'out\n', stderr: 'err\n', missing: false });
    expect(whyFailed(result)).toBe('err');
  });

  it('kills what takes too long, and does not wait for its children', async () => {
    const started = Date.now();
    const result = await runTool(['sh', '-c', 'sleep 3 & exec sleep 30'], { timeoutMs: 200 });
    expect(result).toMatchObject({ ok: false, timedOut: true });
    expect(Date.now() - started).toBeLessThan(2500);
  });

  it('stops when asked to, before and during', async () => {
    const early = await runTool(['sleep', '30'], { timeoutMs: 5000, signal: AbortSignal.abort() });
    expect(early).toMatchObject({ ok: false, aborted: true });
    const late = await runTool(['sleep', '30'], { timeoutMs: 5000, signal: AbortSignal.timeout(100) });
    expect(late).toMatchObject({ ok: false, aborted: true });
  });

  it('tells a program that does not exist', async () => {
    expect(await runTool(['/nonexistent/tool'], { timeoutMs: 5000 })).toMatchObject({ ok: false, missing: true });
  });
});
