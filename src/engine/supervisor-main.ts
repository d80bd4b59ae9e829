// SPDX-License-Identifier: Apache-2.0
/* Entry of the supervisor: PID 1 of the job's container, started by the launcher with the channel on descriptor 3. */
import { Socket } from 'node:net';
import { toErrorRecord } from '../base/errors.js';
import { closeStrangersOnExec } from '../linux/fds.js';
import { letGoOfDeadTerminals } from '../linux/terminal.js';
import type { LauncherMessage, SupervisorMessage } from './config.js';
import { lineSplitter } from './control-protocol.js';
import { EXIT } from './exit-codes.js';
import { startSupervisor } from './supervisor.js';
import type { Supervisor } from './supervisor.js';

const CHANNEL_FD = 3;

const channel = new Socket({ fd: CHANNEL_FD, readable: true, writable: true });
let supervisor: Supervisor | undefined;
let leaving = false;

// As PID 1 we get no signal that we have no handler for; anywhere else a terminal's signals must not end us.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGPIPE'] as const) {
  process.on(signal, () => undefined);
}
process.on('uncaughtException', (error) =>
  leave(EXIT.failed, { type: 'failed', exitCode: EXIT.failed, error: toErrorRecord(error) }),
);

process.once('exit', letGoOfDeadTerminals);

closeStrangersOnExec();
channel.setEncoding('utf8');
channel.on('error', () => undefined);
// Without the launcher nobody would learn how the job ends: it ends now, and its last image stays.
channel.on('close', () => {
  if (supervisor === undefined) process.exit(EXIT.failed);
  supervisor.launcherGone();
});
channel.on('data', lineSplitter(receive) as (piece: string | Buffer) => void);
send({ type: 'hello' });

function receive(line: string): void {
  const message = JSON.parse(line) as LauncherMessage;
  switch (message.type) {
    case 'config':
      supervisor = startSupervisor({ config: message.config, send, leave });
      return;
    case 'signal':
      supervisor?.signal(message.signal, message.ifNotReady);
      return;
    case 'told-to-leave':
      supervisor?.toldToLeave(true);
      return;
    case 'not-told-to-leave':
      supervisor?.toldToLeave(false);
      return;
    case 'window-size':
      supervisor?.setWindowSize(Buffer.from(message.size, 'base64'));
  }
}

function send(message: SupervisorMessage): void {
  if (!channel.destroyed && channel.writable) channel.write(`${JSON.stringify(message)}\n`);
}

/** Say how it ended, then go; whatever of the application still lives ends with PID 1. */
function leave(exitCode: number, message: SupervisorMessage): void {
  if (leaving) return;
  leaving = true;
  supervisor?.close();
  const timer = setTimeout(() => process.exit(exitCode), 1_000);
  channel.write(`${JSON.stringify(message)}\n`, () => {
    clearTimeout(timer);
    process.exit(exitCode);
  });
}
