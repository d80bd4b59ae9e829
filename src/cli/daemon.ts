// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join, resolve } from 'node:path';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { createLogger } from '../base/log.js';
import { runDaemon } from '../daemon/daemon.js';
import type { Address } from '../daemon/listen.js';
import { type RunRequest, parseRunRequest } from '../daemon/request.js';
import { stateDirectory } from '../engine/state.js';
import {
  type ParsedArguments,
  countOption,
  flagOption,
  parseOptions,
  textOption,
  verbosityOption,
  wrongValue,
} from './arguments.js';
import type { Command } from './command.js';
import { givenVariable } from './passphrase.js';

const OPTIONS = {
  socket: { type: 'string' },
  port: { type: 'string', short: 'p' },
  host: { type: 'string' },
  'token-file': { type: 'string' },
  exec: { type: 'string', short: 'e' },
  decider: { type: 'string', short: 'd' },
  'exit-with-run': { type: 'boolean', short: 'k' },
  'status-file': { type: 'string' },
  verbose: { type: 'boolean', short: 'v', multiple: true },
} as const;

export const daemonCommand: Command = {
  name: 'daemon',
  summary: 'Start, freeze and look after a job by HTTP requests (also: ff_daemon)',
  help: `Usage: fastfreeze daemon [OPTIONS]
       ff_daemon [OPTIONS]

Waits for HTTP requests: POST /run starts or continues a job, POST /checkpoint
freezes it, GET /status and GET /healthz tell. One job at a time; its output is
this command's. Requests and answers: docs/ff-daemon.md

Where it listens:
      --socket PATH          a UNIX socket, which only its owner can use
                             [daemon.sock in the directory of running jobs]
  -p, --port PORT            instead: TCP. Needs a token; 0 chooses a free port
      --host ADDR            the address to listen on, with --port [127.0.0.1]
      --token-file FILE      the bearer token (at least 16 characters) that every
                             request but GET /healthz must bring

What it begins with:
  -e, --exec FILE            a request for POST /run, as JSON, that is carried out
                             at the start
  -d, --decider FILE         with --exec: what to do with it. The first character of
                             FILE is 0: start from scratch; 1: as it says; 2, or no
                             such file: nothing, wait for requests

  -k, --exit-with-run        when a run ends, end with its exit code
      --status-file FILE     keep one digit there: 0 nothing runs, 1 a job runs,
                             2 a checkpoint has stopped it
  -v, --verbose              log each request

SIGTERM, SIGINT and SIGHUP are passed on to the job, and the daemon ends after it.

Environment:
  FF_DAEMON_TOKEN            instead of --token-file: the token itself
  FF_STATE_DIR               where running jobs and the socket are kept

Exit status:
    0  ended by a signal while no job ran
    n  the exit code of the run that ended with it, as of fastfreeze run
  170  it cannot listen there, or another daemon does
    2  the command line is wrong, or a file that it names
`,
  async run(args) {
    const startedAtMs = Date.now();
    const givenToken = takeToken();
    const parsed = parseOptions(args, OPTIONS, false);
    if (parsed.rest.length > 0)
      throw wrong(parsed.rest.join(' '), 'it takes no words', 'give a request with --exec FILE');
    const token = tokenOption(parsed, givenToken);
    const address = addressOption(parsed, token);
    const first = firstRun(parsed);
    const statusPath = textOption(parsed, 'status-file');
    const log = createLogger({ command: 'daemon', verbosity: verbosityOption(parsed), startedAtMs });
    if (address.kind === 'tcp' && !/^(?:127\.|::1$|localhost$)/u.test(address.host)) {
      log.warn(`what goes over ${address.host} is not encrypted, the token included: put TLS before it`);
    }
    return await runDaemon({
      address,
      exitWithRun: flagOption(parsed, 'exit-with-run'),
      env: { ...process.env },
      runEnv: givenVariable(),
      log,
      ...(token === undefined ? {} : { token }),
      ...(first === undefined ? {} : { first }),
      ...(statusPath === undefined ? {} : { statusPath: resolve(statusPath) }),
    });
  },
};

/** Out of our environment, which the job would inherit. */
function takeToken(): string | undefined {
  const token = process.env['FF_DAEMON_TOKEN'];
  Reflect.deleteProperty(process.env, 'FF_DAEMON_TOKEN');
  return token;
}

/** The token is never shown, a wrong one neither. */
function tokenOption(parsed: ParsedArguments, variable: string | undefined): string | undefined {
  const path = textOption(parsed, 'token-file');
  const token = path === undefined ? variable : readText(path, `--token-file ${path}`).trim();
  if (token === undefined || /^[\x21-\x7e]{16,4096}$/u.test(token)) return token;
  const subject = path === undefined ? 'FF_DAEMON_TOKEN' : `--token-file ${path}`;
  const hint = 'make one with: openssl rand -hex 32';
  throw wrong(subject, 'a token is 16 to 4096 printable ASCII characters without blanks', hint);
}

function addressOption(parsed: ParsedArguments, token: string | undefined): Address {
  const path = textOption(parsed, 'socket');
  const host = textOption(parsed, 'host');
  if (textOption(parsed, 'port') === undefined) {
    if (host !== undefined) throw wrongValue('host', host, 'it goes with --port');
    if (path === '') throw wrongValue('socket', path, 'expected a path');
    return { kind: 'socket', path: path === undefined ? join(stateDirectory(), 'daemon.sock') : resolve(path) };
  }
  const port = countOption(parsed, 'port', 0, 0);
  if (path !== undefined) throw wrongValue('socket', path, 'give either --socket or --port');
  if (host !== undefined && host !== 'localhost' && isIP(host) === 0) {
    throw wrongValue('host', host, 'expected an IP address of this machine, or localhost');
  }
  if (token !== undefined) return { kind: 'tcp', host: host ?? '127.0.0.1', port };
  throw wrong(
    `--port ${port}`,
    'whoever reaches it could run anything here: it needs a token',
    'give --token-file FILE',
  );
}

/** The request of `--exec`, as the decider leaves it; undefined to wait for one. */
function firstRun(parsed: ParsedArguments): RunRequest | undefined {
  const path = textOption(parsed, 'exec');
  const decider = textOption(parsed, 'decider');
  if (path === undefined) {
    if (decider !== undefined) throw wrongValue('decider', decider, 'there is nothing to decide about without --exec');
    return undefined;
  }
  const text = readText(path, `--exec ${path}`);
  const request = inFile(path, () => parseRunRequest(text));
  switch (decider === undefined ? '1' : decision(decider)) {
    case '0':
      return { ...request, noRestore: true };
    case '1':
      return request;
    case '2':
      return undefined;
  }
}

function inFile(path: string, parse: () => RunRequest): RunRequest {
  try {
    return parse();
  } catch (error) {
    const { message, hint } = asFastFreezeError(error, 'understand');
    throw wrong(`--exec ${path}`, message, hint ?? 'see docs/ff-daemon.md');
  }
}

function decision(path: string): '0' | '1' | '2' {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    // Whoever decides has not done so yet.
    if (hasErrno(error, 'ENOENT')) return '2';
    throw wrong(`--decider ${path}`, asFastFreezeError(error, 'read').reason, 'give a file that can be read');
  }
  const first = text.slice(0, 1);
  if (first === '0' || first === '1' || first === '2') return first;
  throw wrong(`--decider ${path}`, `its first character is ${JSON.stringify(first)}`, 'it must be 0, 1 or 2');
}

function readText(path: string, subject: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw wrong(subject, asFastFreezeError(error, 'read').reason, 'give a file that can be read');
  }
}

function wrong(subject: string, reason: string, hint: string): FastFreezeError {
  return new FastFreezeError({ code: 'usage', op: 'use', subject, reason, hint });
}
