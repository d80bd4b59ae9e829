// SPDX-License-Identifier: Apache-2.0
import { closeFd } from './fds.js';
import { check, libc } from './libc.js';
import { socket } from './unix-socket.js';

const send = libc.func('int64 send(int fd, const void *bytes, uint64 length, int flags)') as (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
) => number;
const recv = libc.func('int64 recv(int fd, void *into, uint64 length, int flags)') as (
  fd: number,
  into: Uint8Array,
  length: number,
  flags: number,
) => number;
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const void *value, uint length)') as (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  length: number,
) => number;

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 0o2000003;
const NETLINK_SOCK_DIAG = 4;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
/** The kernel answers at once; should it not, nobody is to wait for ever. */
const TIMEOUT_S = 5n;

const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST_DUMP = 0x301;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const AF_UNIX = 1;
const UDIAG_SHOW_PEER = 4;
const UNIX_DIAG_PEER = 2;
const HEADER_BYTES = 16;
const DIAG_BYTES = 16;

/**
 * The connected UNIX sockets of this network namespace: the inode of each, as /proc/PID/fd shows it, and that of its peer.
 * /proc/net/unix does not tell the peer. Throws a SystemError where the kernel does not answer.
 */
export function unixPeers(): Map<number, number> {
  const fd = check(socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG), 'socket');
  try {
    const timeout = Buffer.alloc(16);
    timeout.writeBigInt64LE(TIMEOUT_S, 0);
    check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length), 'setsockopt');
    const request = peersRequest();
    check(send(fd, request, request.length, 0), 'send');
    const peers = new Map<number, number>();
    const into = Buffer.alloc(64 * 1024);
    for (;;) {
      const length = check(recv(fd, into, into.length, 0), 'recv');
      if (readAnswer(into.subarray(0, length), peers)) return peers;
    }
  } finally {
    closeFd(fd);
  }
}

function peersRequest(): Buffer {
  const request = Buffer.alloc(HEADER_BYTES + 24);
  request.writeUInt32LE(request.length, 0);
  request.writeUInt16LE(SOCK_DIAG_BY_FAMILY, 4);
  request.writeUInt16LE(NLM_F_REQUEST_DUMP, 6);
  request.writeUInt8(AF_UNIX, HEADER_BYTES);
  // Whatever its state, whichever its cookie.
  request.writeUInt32LE(0xffffffff, HEADER_BYTES + 4);
  request.writeUInt32LE(UDIAG_SHOW_PEER, HEADER_BYTES + 12);
  return request;
}

/** Adds what one datagram of the answer tells; true at its end. */
export function readAnswer(bytes: Buffer, peers: Map<number, number>): boolean {
  for (let at = 0; at + HEADER_BYTES <= bytes.length;) {
    const length = bytes.readUInt32LE(at);
    const type = bytes.readUInt16LE(at + 4);
    if (length < HEADER_BYTES || at + length > bytes.length) return true;
    if (type === NLMSG_DONE || type === NLMSG_ERROR) return true;
    const message = bytes.subarray(at + HEADER_BYTES, at + length);
    if (type === SOCK_DIAG_BY_FAMILY && message.length >= DIAG_BYTES) {
      const peer = peerOf(message.subarray(DIAG_BYTES));
      if (peer !== 0) peers.set(message.readUInt32LE(4), peer);
    }
    at += aligned(length);
  }
  return false;
}

function peerOf(attributes: Buffer): number {
  for (let at = 0; at + 4 <= attributes.length;) {
    const length = attributes.readUInt16LE(at);
    if (length < 4 || at + length > attributes.length) return 0;
    if (attributes.readUInt16LE(at + 2) === UNIX_DIAG_PEER && length >= 8) return attributes.readUInt32LE(at + 4);
    at += aligned(length);
  }
  return 0;
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}
