// SPDX-License-Identifier: Apache-2.0
import { closeFd, makeEventfd, tryRead, tryWrite } from './fds.js';
import { EBADF, EEXIST, EINTR, ENOENT, EPERM, SystemError, check, lastErrno, libc } from './libc.js';

const epollCreate = libc.func('int epoll_create1(int flags)') as (flags: number) => number;
const epollCtl = libc.func('int epoll_ctl(int epoll, int op, int fd, void *event)') as (
  epoll: number,
  op: number,
  fd: number,
  event: Uint8Array,
) => number;
const epollWait = libc.func('int epoll_wait(int epoll, void *events, int count, int timeoutMs)') as unknown as {
  async(
    epoll: number,
    events: Uint8Array,
    count: number,
    timeoutMs: number,
    done: (error: unknown, ready: number) => void,
  ): void;
};

export const POLLIN = 0x1;
export const POLLOUT = 0x4;
export const POLLERR = 0x8;
export const POLLHUP = 0x10;
const POLLNVAL = 0x20;
/** By edges: told at each wake-up of whoever waits for the descriptor, and once at the start, never in between. */
export const POLLET = 0x80000000;

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
/** struct epoll_event is packed on x86-64: the events, then 64 bits of our own. */
const EVENT_BYTES = 12;
const MAX_EVENTS = 64;

/** One descriptor under watch. `setEvents(0)` keeps it but does not wait for it. */
export interface Watch {
  setEvents(events: number): void;
  close(): void;
}

/**
 * Waits for many descriptors on one thread of libuv's pool, so that the other threads stay free for work:
 * a blocking read per pipe would park them all and deadlock. Callbacks run on the main thread, level-triggered.
 */
export interface Poller {
  watch(fd: number, events: number, ready: (revents: number) => void): Watch;
  close(): void;
}

interface Entry {
  events: number;
  readonly ready: (revents: number) => void;
}

/** A descriptor and all who watch it: a terminal has one for each direction. */
interface Slot {
  readonly id: number;
  readonly fd: number;
  readonly entries: Set<Entry>;
  /** What the kernel has been asked for; 0 when it has not been asked. */
  armed: number;
  /** Files that cannot be waited for (regular ones) are ready at all times: with these events. */
  always: number;
}

/** A sleeping wait ends at least this often, so that a missed wake-up costs time, never the job. */
const WAIT_TIMEOUT_MS = 2_000;
const WAKE_ID = 0;

export function createPoller(): Poller {
  // epoll, not poll: what is asked for changes while a thread sleeps in it, which need not be woken for that.
  const epoll = check(epollCreate(EPOLL_CLOEXEC), 'epoll_create1');
  const wakeFd = makeEventfd();
  const wakeBytes = Buffer.alloc(8);
  wakeBytes.writeBigUInt64LE(1n);
  const drainBytes = Buffer.alloc(8);
  const event = Buffer.alloc(EVENT_BYTES);
  const events = Buffer.alloc(EVENT_BYTES * MAX_EVENTS);
  const slotsByFd = new Map<number, Slot>();
  const slotsById = new Map<number, Slot>();
  let nextId = WAKE_ID + 1;
  let armedSlots = 0;
  let waiting = false;
  let scheduled = false;
  let closed = false;

  const control = (op: number, slot: { readonly id: number; readonly fd: number }, mask: number): number => {
    event.writeUInt32LE(mask >>> 0, 0);
    event.writeUInt32LE(slot.id, 4);
    return epollCtl(epoll, op, slot.fd, event) < 0 ? lastErrno() : 0;
  };
  check(control(EPOLL_CTL_ADD, { id: WAKE_ID, fd: wakeFd }, POLLIN) === 0 ? 0 : -1, 'epoll_ctl');

  /** Tell the kernel what is wanted of a descriptor now. */
  const update = (slot: Slot): void => {
    if (closed) return;
    let wanted = 0;
    for (const entry of slot.entries) wanted |= entry.events;
    if (slot.armed !== wanted) {
      armedSlots += Number(wanted !== 0) - Number(slot.armed !== 0);
      const op = wanted === 0 ? EPOLL_CTL_DEL : slot.armed === 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
      slot.armed = wanted;
      settle(slot, op, control(op, slot, wanted));
    }
    if (armedSlots > 0) schedule();
    // Nobody waits any more: nor does the thread, which would keep the process from ending.
    else if (waiting) tryWrite(wakeFd, wakeBytes, 8);
  };

  const settle = (slot: Slot, op: number, errno: number): void => {
    slot.always = 0;
    if (errno === 0 || op === EPOLL_CTL_DEL) return;
    // A descriptor that was closed under its watch takes the kernel's note of it along; its number may be another's now.
    const retry = errno === ENOENT ? EPOLL_CTL_ADD : errno === EEXIST ? EPOLL_CTL_MOD : undefined;
    const again = retry === undefined ? errno : control(retry, slot, slot.armed);
    if (again === 0) return;
    if (again === EPERM) slot.always = slot.armed;
    else if (again === EBADF) slot.always = POLLNVAL;
    else throw new SystemError('epoll_ctl', again);
  };

  const schedule = (): void => {
    if (waiting || scheduled || closed) return;
    scheduled = true;
    setImmediate(wait);
  };

  const wait = (): void => {
    scheduled = false;
    if (closed || waiting || armedSlots === 0) return;
    const always = [...slotsById.values()].filter((slot) => slot.always !== 0);
    waiting = true;
    epollWait.async(epoll, events, MAX_EVENTS, always.length > 0 ? 0 : WAIT_TIMEOUT_MS, (error, ready) => {
      waiting = false;
      if (closed) {
        closeFd(wakeFd);
        closeFd(epoll);
        return;
      }
      if (error !== null || (ready < 0 && lastErrno() !== EINTR && lastErrno() !== 0)) {
        throw error instanceof Error ? error : new SystemError('epoll_wait', lastErrno());
      }
      // The callbacks may change any watch: all events are read before the first of them runs.
      const told: [number, number][] = always.map((slot) => [slot.id, slot.always]);
      for (let i = 0; i < ready; i++) {
        told.push([events.readUInt32LE(i * EVENT_BYTES + 4), events.readUInt32LE(i * EVENT_BYTES)]);
      }
      for (const [id, revents] of told) {
        if (id === WAKE_ID) tryRead(wakeFd, drainBytes, 8);
        else tell(id, revents);
      }
      wait();
    });
  };

  const tell = (id: number, revents: number): void => {
    const slot = slotsById.get(id);
    if (slot === undefined) return;
    for (const entry of [...slot.entries]) {
      const concerns = entry.events === 0 ? 0 : revents & (entry.events | POLLERR | POLLHUP | POLLNVAL);
      if (concerns !== 0 && slot.entries.has(entry)) entry.ready(concerns);
    }
  };

  return {
    watch(fd, wanted, ready) {
      let slot = slotsByFd.get(fd);
      if (slot === undefined) {
        slot = { id: nextId++, fd, entries: new Set(), armed: 0, always: 0 };
        slotsByFd.set(fd, slot);
        slotsById.set(slot.id, slot);
      }
      const { entries } = slot;
      const watched = slot;
      const entry: Entry = { events: wanted, ready };
      entries.add(entry);
      update(watched);
      return {
        setEvents(next) {
          if (entry.events === next || !entries.has(entry)) return;
          entry.events = next;
          update(watched);
        },
        close() {
          if (!entries.delete(entry)) return;
          update(watched);
          if (entries.size > 0) return;
          slotsById.delete(watched.id);
          if (slotsByFd.get(fd) === watched) slotsByFd.delete(fd);
        },
      };
    },
    close() {
      if (closed) return;
      closed = true;
      slotsByFd.clear();
      slotsById.clear();
      if (waiting) tryWrite(wakeFd, wakeBytes, 8);
      else {
        closeFd(wakeFd);
        closeFd(epoll);
      }
    },
  };
}
