// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { type Verbosity, createLogger, silentLogger } from '../../../src/base/log.js';
import { moduleUrl, scriptCommand } from '../linux/support.js';

function linesAt(verbosity: Verbosity): string[] {
  const lines: string[] = [];
  const log = createLogger({
    command: 'run',
    verbosity,
    startedAtMs: Date.now() - 12,
    write: (line) => lines.push(line),
  });
  log.info('story');
  log.debug('step');
  log.trace('detail');
  log.warn('careful');
  log.error('broken');
  return lines.map((line) => line.replace(/\(0\.\d{3}s\)/, '(T)'));
}

describe('the log', () => {
  test('says as much as it is asked to, one line each', () => {
    const said = ['[ff.run] (T) story\n', '[ff.run] (T) Warning: careful\n', '[ff.run] (T) Error: broken\n'];
    expect(linesAt(0)).toEqual(said);
    expect(linesAt(1)).toEqual([said[0], '[ff.run] (T) step\n', said[1], said[2]]);
    expect(linesAt(2)).toEqual([said[0], '[ff.run] (T) step\n', '[ff.run] (T) detail\n', said[1], said[2]]);
    expect(() => silentLogger.error('nothing')).not.toThrow();
  });

  test('is one object a line for programs, with the hint of an error', () => {
    const lines: string[] = [];
    const write = (line: string): void => void lines.push(line);
    const log = createLogger({ command: 'run', verbosity: 0, format: 'json', startedAtMs: Date.now() - 12, write });
    log.info('two\nlines, "quoted"');
    log.debug('not asked for');
    log.warn('careful');
    log.error('broken', 'mend it');
    expect(lines.every((line) => line.indexOf('\n') === line.length - 1)).toBe(true);
    const records = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(records).toMatchObject([
      { level: 'info', command: 'run', message: 'two\nlines, "quoted"' },
      { level: 'warn', message: 'careful' },
      { level: 'error', message: 'broken', hint: 'mend it' },
    ]);
    expect(records[0]).not.toHaveProperty('hint');
    expect(records[0]?.['elapsedMs']).toBeGreaterThanOrEqual(12);
    expect(records[0]?.['time']).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  });

  test('goes to standard error, and survives that nobody listens there', () => {
    const script = `
      import { createLogger } from '${moduleUrl('base/log.js')}';
      const log = createLogger({ command: 'run', verbosity: 0 });
      for (let i = 0; i < 5; i++) log.info('line');
      console.log('alive');`;
    const words = scriptCommand(script).map((word) => `'${word.replaceAll("'", "'\\''")}'`);
    const env = { ...process.env, NODE_OPTIONS: '' };
    const heard = spawnSync('sh', ['-c', words.join(' ')], { encoding: 'utf8', env, timeout: 20_000 });
    expect([heard.stdout, heard.stderr.split('\n').length]).toEqual(['alive\n', 6]);
    const alone = spawnSync('bash', ['-c', `${words.join(' ')} 2> >(exec 0<&-; sleep 0)`], {
      encoding: 'utf8',
      env,
      timeout: 20_000,
    });
    expect([alone.status, alone.stdout]).toEqual([0, 'alive\n']);
  }, 60_000);
});
