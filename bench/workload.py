# SPDX-License-Identifier: Apache-2.0
"""The program that the benchmark freezes: workload.py BYTES LOG PROCESSES

Holds BYTES of private memory, pages of noise and pages of a real heap in turn, and notes in LOG when it was stopped
and when it went on, by its own clock: that is how long it was frozen, whoever froze it. SIGUSR1 makes it look through
its memory. PROCESSES - 1 children hold a MiB each and sleep.
"""

import mmap
import os
import random
import signal
import sys
import threading
import time
import zlib

PAGE = 4096
BATCH = 1024  # pages of a kind read by one call (IOV_MAX)
RECORDS = 60_000
HEAP = 32 << 20
HEARTBEAT_SECONDS = 0.002
GAP_SECONDS = 0.010


def heap_pages():
    """
    Pages of a Python heap that holds records: text, numbers, pointers, as they lie in the memory of programs. Made-up
    text compresses neither as well nor as fast as what a program really holds.
    """
    generator = random.Random(1)
    records = []
    for n in range(RECORDS):
        values = [generator.random() for _ in range(5)]
        records.append({"id": n, "name": "user%d" % generator.randrange(10**6), "values": values, "at": (n, 2 * n)})
    pages = []
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for mapping in maps:
            bounds, rights, _, _, inode = mapping.split()[:5]
            first, last = (int(bound, 16) for bound in bounds.split("-"))
            if rights != "rw-p" or inode != "0" or "[stack]" in mapping:
                continue
            memory.seek(first)
            content = memory.read(last - first)
            for at in range(0, len(content), PAGE):
                page = content[at : at + PAGE]
                if page.count(0) < PAGE * 9 // 10:
                    pages.append(page)
    return pages[: HEAP // PAGE]


def fill(memory, first, last, heap):
    """Even pages are noise; odd ones are of the heap, each with its number, so that no two are the same."""
    noise = os.open("/dev/urandom", os.O_RDONLY)
    page = first
    while page < last:
        stop = min(last, page + 2 * BATCH)
        os.readv(noise, [memory[p * PAGE : (p + 1) * PAGE] for p in range(page, stop, 2)])
        for p in range(page + 1, stop, 2):
            memory[p * PAGE : (p + 1) * PAGE] = b"%08x" % p + heap[p // 2 % len(heap)][8:]
        page = stop
    os.close(noise)


def checksum(memory):
    value = 0
    for page in range(0, len(memory) // PAGE, 16):
        value = zlib.crc32(memory[page * PAGE : page * PAGE + 2 * PAGE], value)
    return value


def children(count):
    for _ in range(count):
        if os.fork() == 0:
            mine = bytearray(os.urandom(1 << 20))
            while mine:
                signal.pause()


def main(size, log_path, processes):
    # Not a descriptor leads out of here, so that every contestant restores the same program with the same options.
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    memory = memoryview(b"")
    if size > 0:
        heap = heap_pages()
        memory = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        pages = size // PAGE
        half = pages // 2 // 2 * 2
        fillers = [threading.Thread(target=fill, args=(memory, *part, heap)) for part in ((0, half), (half, pages))]
        for filler in fillers:
            filler.start()
        for filler in fillers:
            filler.join()
        del heap
    children(processes - 1)
    expected = checksum(memory)

    def log(text):
        with open(log_path, "a") as out:
            out.write(text + "\n")

    wanted = []
    signal.signal(signal.SIGUSR1, lambda *_: wanted.append(True))
    log("ready")
    last = time.time()
    while True:
        time.sleep(HEARTBEAT_SECONDS)
        now = time.time()
        if now - last > GAP_SECONDS:
            log("gap %.6f %.6f" % (last, now))
            now = time.time()
        last = now
        if wanted:
            wanted.clear()
            log("intact" if checksum(memory) == expected else "damaged")
            last = time.time()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
