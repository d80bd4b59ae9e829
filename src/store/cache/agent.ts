// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FastFreezeError } from '../../base/errors.js';
import { nodeCommand } from '../../linux/node-command.js';
import { type AgentAnswer, type AgentRequest, OBJECT_PATH } from './agent-protocol.js';

/** Told of every process that is started: whoever reaps orphans must leave ours to Node.js. */
export type Adopt = (child: ChildProcess) => void;

const MAX_STDERR = 2_000;

/** One process with GitHub's client in it, which does one thing at a time. It ends with us. */
export class CacheAgent {
  /** Where the object lies that is saved, and where one is restored to. */
  readonly objectPath: string;
  private readonly child: ChildProcess;
  private stderr = '';
  private over = false;
  private settle: ((outcome: AgentAnswer | FastFreezeError) => void) | undefined;

  /** `directory` is the agent's alone, and named without links. */
  constructor(directory: string, adopt: Adopt) {
    this.objectPath = join(directory, OBJECT_PATH);
    const [node, ...flags] = nodeCommand();
    const entry = fileURLToPath(new URL('./agent-main.js', import.meta.url));
    this.child = spawn(node, [...flags, '--no-warnings', entry], {
      cwd: directory,
      // Away from the terminal's process group, and one with its tools: they end together.
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: agentEnvironment(process.env, directory),
    });
    adopt(this.child);
    this.child.stderr?.on(
      'data',
      (piece: Buffer) => (this.stderr = (this.stderr + piece.toString()).slice(-MAX_STDERR)),
    );
    this.child.on('message', (answer) => this.settle?.(answer as AgentAnswer));
    this.child.once('error', (error) => this.ended(error.message));
    this.child.once('exit', (code, signal) => {
      // Its tools do not notice.
      if (!this.over) this.killGroup();
      this.ended(`it ended (${signal ?? `exit code ${code}`})`);
    });
    this.keepAwake(false);
  }

  get isOver(): boolean {
    return this.over;
  }

  /** Throws `store` when the process ends, or does not answer in time; it is over then. */
  async ask(request: AgentRequest, timeoutMs: number): Promise<AgentAnswer> {
    if (this.over) throw this.failure('it has ended');
    this.keepAwake(true);
    const timer = setTimeout(() => this.end(`it did not answer within ${Math.round(timeoutMs / 1000)} s`), timeoutMs);
    try {
      const outcome = await new Promise<AgentAnswer | FastFreezeError>((resolve) => {
        this.settle = resolve;
        this.child.send(request, (error) => {
          if (error !== null) this.ended(error.message);
        });
      });
      if (outcome instanceof FastFreezeError) throw outcome;
      return outcome;
    } finally {
      clearTimeout(timer);
      this.settle = undefined;
      this.keepAwake(false);
    }
  }

  /** With the tools that it runs, at once. Idempotent. */
  end(reason = 'called off'): void {
    if (!this.over) this.killGroup();
    this.ended(reason);
  }

  private killGroup(): void {
    const { pid } = this.child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }

  private ended(reason: string): void {
    this.over = true;
    this.settle?.(this.failure(reason));
  }

  private failure(reason: string): FastFreezeError {
    const [first = ''] = this.stderr.split('\n').filter((line) => /error/i.test(line));
    return new FastFreezeError({
      code: 'store',
      op: 'talk to',
      subject: "GitHub's cache",
      reason: `the process that does it failed: ${reason}${first === '' ? '' : `: ${first}`}`,
      passing: true,
    });
  }

  /** Whether Node.js waits for it: an idle one keeps nobody from ending. */
  private keepAwake(awake: boolean): void {
    const parts = [this.child, this.child.channel, this.child.stderr as Socket | null];
    for (const part of parts) {
      if (awake) part?.ref();
      else part?.unref();
    }
  }
}

function agentEnvironment(env: NodeJS.ProcessEnv, directory: string): NodeJS.ProcessEnv {
  return {
    ...env,
    // What the client names files relative to, and where it makes its archives.
    GITHUB_WORKSPACE: directory,
    RUNNER_TEMP: directory,
    // As root it would try to give the file to whoever saved it.
    TAR_OPTIONS: '--no-same-owner',
    // Objects are compressed already; the client compresses all the same.
    ZSTD_CLEVEL: '1',
    // Would list every archive.
    RUNNER_DEBUG: '',
  };
}
