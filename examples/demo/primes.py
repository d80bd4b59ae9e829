#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small job that notices when it is not continued exactly.

    primes.py LINES            find so many primes, one numbered line each
    primes.py --check LINES    read such lines on standard input and compare every one with what it must be

A worker process looks for primes and sends them through a pipe; the parent adds each to a running checksum and to
the table in its memory, and prints a line. The checksum depends on all lines before it, and the end of the job looks
through the whole table: a number lost, repeated or changed anywhere shows. The host's name at the end of a line is
where the line was printed; it is the only thing that may differ.
"""

import os
import socket
import sys
import time
import zlib

SECONDS_PER_LINE = 0.02
NOISE_BYTES = 32 << 20


def is_prime(n):
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def primes():
    n = 2
    while True:
        if is_prime(n):
            yield n
        n += 1


def lines(count, source):
    checksum = 0
    for number, prime in zip(range(1, count + 1), source):
        checksum = zlib.crc32(b"%d" % prime, checksum)
        yield number, prime, "line %4d  prime %5d  checksum %08x" % (number, prime, checksum)


def work(end):
    with open(end, "w") as out:
        for prime in primes():
            print(prime, file=out, flush=True)


def run(count):
    read_end, write_end = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(read_end)
        work(write_end)
    os.close(write_end)
    noise = os.urandom(NOISE_BYTES)
    noise_checksum = zlib.crc32(noise)
    table = []
    with open(read_end) as found:
        for number, prime, line in lines(count, map(int, found)):
            table.append(prime)
            print("%s  on %s" % (line, socket.gethostname()), flush=True)
            time.sleep(SECONDS_PER_LINE)
        os.kill(worker, 9)
        os.waitpid(worker, 0)
    if not all(map(is_prime, table)) or len(set(table)) != count or zlib.crc32(noise) != noise_checksum:
        print("memory is damaged", flush=True)
        return 1
    print("done: %d primes, memory intact" % count, flush=True)
    return 0


def check(count):
    expected = [line for _, _, line in lines(count, primes())] + ["done: %d primes, memory intact" % count]
    found = [line.rstrip("\n").split("  on ")[0] for line in sys.stdin]
    for number, line in enumerate(expected):
        got = found[number] if number < len(found) else "(nothing)"
        if got != line:
            print("line %d is wrong\n  expected  %s\n  found     %s" % (number + 1, line, got))
            return 1
    if len(found) > len(expected):
        print("%d lines too many, the first: %s" % (len(found) - len(expected), found[len(expected)]))
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        sys.exit(check(int(sys.argv[2])))
    sys.exit(run(int(sys.argv[1])))
