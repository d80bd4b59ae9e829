// SPDX-License-Identifier: Apache-2.0

/** What every call of CRIU needs to know. */
export interface CriuSetup {
  /** argv of a CRIU that works here, without its subcommand. */
  readonly command: readonly string[];
  /** True with the machine's capabilities; false inside a user namespace of our own. */
  readonly privileged: boolean;
  /** 0 errors and warnings, 1 information, 2 everything. */
  readonly verbosity: 0 | 1 | 2;
  /** The user's own words, appended last so that they win (`CRIU_OPTS`). */
  readonly extraOptions: readonly string[];
}

/** Words of a user's `CRIU_OPTS`. */
export function criuOptions(text: string | undefined): string[] {
  return (text ?? '').split(/\s+/).filter((word) => word !== '');
}

/** The same CRIU with further options, which win. */
export function withOptions(setup: CriuSetup, options: readonly string[]): CriuSetup {
  return { ...setup, extraOptions: [...setup.extraOptions, ...options] };
}

/** A descriptor of ours that takes the place of a resource of the image. */
export interface InheritedResource {
  readonly fd: number;
  /** CRIU's name of it: `pipe:[INODE]` or `tty[RDEV:DEV]`, in hexadecimal. */
  readonly resource: string;
}

export interface DumpOptions {
  readonly pid: number;
  /** Terminals whose other end stays outside: `tty[RDEV:DEV]`. */
  readonly externals: readonly string[];
  /** Script that CRIU runs while the tree is frozen and the image complete; its failure resumes the application. */
  readonly gateScript: string;
  /** What CRIU does with the application once the script has succeeded: resume it, or end it. */
  readonly leaveRunning: boolean;
}

export function dumpArguments(setup: CriuSetup, options: DumpOptions): string[] {
  return [
    ...setup.command,
    'dump',
    ...['--tree', String(options.pid)],
    ...commonArguments(setup, 'dump.log'),
    // Unlinked files that are still open travel whole; the default limit of 1 MiB refuses real programs.
    ...['--ghost-limit', '64G'],
    // Connections do not survive anyway, so there is no reason to touch the firewall and nothing to leak.
    ...['--network-lock', 'skip'],
    ...options.externals.flatMap((name) => ['--external', name]),
    ...['--action-script', options.gateScript],
    ...(options.leaveRunning ? ['--leave-running'] : []),
    ...setup.extraOptions,
  ];
}

export interface RestoreOptions {
  readonly inherited: readonly InheritedResource[];
  /** Script that CRIU runs when everything is back and nothing runs yet; its failure ends what was restored. */
  readonly gateScript?: string;
  readonly leaveStopped: boolean;
}

export function restoreArguments(setup: CriuSetup, options: RestoreOptions): string[] {
  return [
    ...setup.command,
    'restore',
    ...commonArguments(setup, 'restore.log'),
    // The application becomes our child, not CRIU's, so that its exit status can be waited for.
    '--restore-sibling',
    '--restore-detached',
    ...options.inherited.flatMap(({ fd, resource }) => ['--inherit-fd', `fd[${fd}]:${resource}`]),
    ...(options.gateScript === undefined ? [] : ['--action-script', options.gateScript]),
    ...(options.leaveStopped ? ['--leave-stopped'] : []),
    ...setup.extraOptions,
  ];
}

/** CRIU is started in its working directory: by its name the socket's path could be too long. */
function commonArguments(setup: CriuSetup, log: string): string[] {
  return [
    ...['--images-dir', '.', '--work-dir', '.'],
    ...['--log-file', log, `-v${setup.verbosity + 2}`],
    '--stream',
    ...(setup.privileged ? [] : ['--unprivileged']),
    '--ext-unix-sk',
    '--tcp-close',
    '--skip-in-flight',
    '--file-locks',
    // Size, not build-id: the latter warns about every file without one.
    ...['--file-validation', 'filesize'],
    '--manage-cgroups=ignore',
    '--shell-job',
    // No `--cpu-cap`: what CRIU would record and compare is the CPU of the source, with all that a baseline hides from the
    // application. The manifest says what it may use, and that is compared before CRIU runs. Without the option CRIU still
    // insists on XSAVE where registers were saved with it, and on the size of each kind of registers that the machine has;
    // those that it does not have are left out without a word, which is right only for registers that were never used.
  ];
}
