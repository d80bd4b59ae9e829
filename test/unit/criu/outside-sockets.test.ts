// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { MAGIC } from '../../../src/criu/images/entries.js';
import { closeOutside } from '../../../src/criu/images/outside-sockets.js';
import { imageFile, message } from './protobuf-writer.js';

const [STREAM, DATAGRAM, SEQPACKET] = [1, 2, 5];

interface Socket {
  readonly inode: number;
  readonly type: number;
  readonly peer?: number;
  readonly flags?: number;
  readonly name?: string;
  readonly shutdown?: number;
}

const socket = ({ inode, type, peer = 0, flags = 0, name = '', shutdown }: Socket): Buffer =>
  message({
    1: 5,
    2: inode,
    16: message({
      1: inode,
      2: inode,
      3: type,
      4: 1,
      5: 2,
      6: flags,
      7: 0,
      8: peer,
      9: 'o',
      10: 'p',
      11: name,
      12: shutdown,
    }),
  });
const outside = (inode: number, name = ''): Buffer => socket({ inode, type: DATAGRAM, flags: 1, name });

describe('connections that led outside', () => {
  test('are closed: streams shut down both ways, datagram sockets without a peer, those within the job as they were', () => {
    const regular = message({ 1: 1, 2: 9, 3: message({ 6: '/a/file' }) });
    const within = [socket({ inode: 5, type: STREAM, peer: 6 }), socket({ inode: 6, type: STREAM, peer: 5 })];
    const before = [
      regular,
      socket({ inode: 1, type: STREAM, peer: 11 }),
      socket({ inode: 2, type: SEQPACKET, peer: 12 }),
      socket({ inode: 3, type: DATAGRAM, peer: 13 }),
      socket({ inode: 4, type: DATAGRAM, peer: 14 }),
      ...within,
      ...[11, 12].map((inode) => outside(inode)),
      outside(13, '/run/gone'),
      outside(14, '/run/log'),
    ];
    const asked: string[] = [];
    const changed = closeOutside(imageFile(MAGIC.files, before), (name) => {
      asked.push(Buffer.from(name).toString());
      return asked.at(-1) === '/run/log';
    });
    const after = [
      regular,
      socket({ inode: 1, type: STREAM, shutdown: 3 }),
      socket({ inode: 2, type: SEQPACKET, shutdown: 3 }),
      socket({ inode: 3, type: DATAGRAM }),
      ...before.slice(4),
    ];
    expect(changed.equals(imageFile(MAGIC.files, after))).toBe(true);
    expect(asked).toEqual(['/run/gone', '/run/log']);
  });

  test('without any, the list is what it was', () => {
    const bytes = imageFile(MAGIC.files, [socket({ inode: 5, type: STREAM, peer: 6 })]);
    expect(closeOutside(bytes, () => true)).toBe(bytes);
  });

  test('in a list that is none are an error', () => {
    expect(() => closeOutside(Buffer.from('nonsense'), () => true)).toThrow(/does not begin/);
  });
});
