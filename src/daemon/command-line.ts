// SPDX-License-Identifier: Apache-2.0
import type { CheckpointRequest, RunRequest } from './request.js';

/** The words of `fastfreeze run` for a request. Values are joined to their options: they may begin with a dash. */
export function runWords(request: RunRequest, notifyFd: number): string[] {
  return [
    'run',
    `--notify-fd=${notifyFd}`,
    `--container=${request.name}`,
    ...commonWords(request),
    ...(request.noRestore ? ['--no-restore'] : []),
    ...(request.allowBadImage ? ['--allow-bad-image-version'] : []),
    ...(request.leaveStopped ? ['--leave-stopped'] : []),
    ...option('on-app-ready', request.onAppReady),
    '--',
    ...request.command,
  ];
}

/** The words of `fastfreeze checkpoint`; its result comes as JSON. */
export function checkpointWords(request: CheckpointRequest, name: string): string[] {
  return [
    'checkpoint',
    '--json',
    `--container=${name}`,
    ...commonWords(request),
    ...(request.leaveRunning ? ['--leave-running'] : []),
    ...option('num-shards', request.numShards),
    ...option('cpu-budget', request.cpuBudget),
  ];
}

function commonWords(request: RunRequest | CheckpointRequest): string[] {
  return [
    ...option('image-url', request.imageUrl),
    ...option('passphrase-file', request.passphraseFile),
    ...(request.preservedPaths ?? []).flatMap((path) => option('preserve-path', path)),
    // More than two say no more.
    ...Array.from({ length: Math.min(request.verbose, 2) }, () => '--verbose'),
  ];
}

function option(name: string, value: string | number | undefined): string[] {
  return value === undefined ? [] : [`--${name}=${value}`];
}
