// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd, makeFifo, tryRead } from '../linux/fds.js';
import { type Poller, POLLIN } from '../linux/poller.js';

/** The point at which CRIU waits for a word of ours. */
export interface Gate {
  readonly script: string;
  readonly reached: Promise<void>;
  release(verdict: 'commit' | 'resume'): void;
  close(): void;
}

/*
 * CRIU's post-dump script runs between "image complete" and "end the application", its post-restore script between
 * "everything is back" and "let it run". Ours says so through one named pipe and reads the verdict from another. If we
 * vanish, the pipe ends, the verdict is empty, and CRIU fails: a dumped application runs on, a restored one is ended.
 */
const GATE_SCRIPT = `#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = "$FF_GATE_ACTION" ] || exit 0
echo reached > "$FF_GATE/gate-up"
verdict=
read -r verdict < "$FF_GATE/gate-down"
[ "$verdict" = commit ]
`;

export type GateAction = 'post-dump' | 'post-restore';

/** What CRIU hands on to the script. */
export function gateEnvironment(directory: string, action: GateAction): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
    FF_GATE: directory,
    FF_GATE_ACTION: action,
  };
}

export function openGate(directory: string, poller: Poller): Gate {
  const script = join(directory, 'gate.sh');
  const up = join(directory, 'gate-up');
  const down = join(directory, 'gate-down');
  makeFifo(up);
  makeFifo(down);
  writeFileSync(script, GATE_SCRIPT, { mode: 0o700 });
  // Read-write, so that neither open blocks and the script always finds a peer while we live.
  const upFd = openSync(up, constants.O_RDWR | constants.O_NONBLOCK);
  const downFd = openSync(down, constants.O_RDWR | constants.O_NONBLOCK);
  let announce: () => void = () => undefined;
  const reached = new Promise<void>((resolve) => (announce = resolve));
  const bytes = Buffer.alloc(64);
  let open = true;
  const watch = poller.watch(upFd, POLLIN, () => {
    const got = tryRead(upFd, bytes, bytes.length);
    if (got !== 'again' && got > 0) announce();
  });
  return {
    script,
    reached,
    release(verdict) {
      if (open) writeSync(downFd, `${verdict}\n`);
    },
    close() {
      open = false;
      watch.close();
      closeFd(upFd);
      closeSync(downFd);
    },
  };
}
