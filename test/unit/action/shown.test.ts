// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { outputWriter } from '../../../src/action/shown.js';

test('what the command writes is passed on as it is; a line of ours begins a line, and no empty one comes before it', async () => {
  let shown = '';
  const writer = outputWriter((piece) => {
    shown += piece.toString();
    return Promise.resolve();
  });
  await writer.endLine();
  for (const piece of ['one\n', 'half', ' a line']) await writer.write(Buffer.from(piece));
  await writer.endLine();
  await writer.endLine();
  expect(shown).toBe('one\nhalf a line\n');
  await writer.write(Buffer.from('whole\n'));
  await writer.endLine();
  expect(shown).toBe('one\nhalf a line\nwhole\n');
});
