// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { createLogger } from '../base/log.js';
import { attend } from '../batch/attend.js';
import { chooseSystem } from '../batch/recognise.js';
import { resubmit } from '../batch/resubmit.js';
import { type SetUp, setUp, withInspection } from '../batch/set-up.js';
import { rescue } from '../batch/slurm-rescue.js';
import { SYSTEM_NAMES, type SystemName, valueOf } from '../batch/system.js';
import { CHECKPOINTED, INTERRUPTED } from '../engine/config.js';
import type { RunOutcome } from '../engine/run.js';
import { readSpool } from '../engine/spool.js';
import { ASSUMED_MTTP_MS } from '../notice/planner.js';
import type { NoticeSource } from '../notice/notice.js';
import { createPilot } from '../notice/pilot.js';
import { cloudSources, isCloud } from '../notice/sources/clouds.js';
import { commandSource, fileSource } from '../notice/sources/local.js';
import {
  type ParsedArguments,
  countOption,
  durationOption,
  ownWords,
  pathOption,
  flagOption,
  parseDuration,
  parseOptions,
  textOption,
  wrongValue,
} from './arguments.js';
import { explainJson, explainText } from './batch-text.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { resubmitOption } from './resubmit.js';
import { RUN_OPTIONS, isAuto, signalNames, toRunOptions } from './run-options.js';
import { type RunPlan, runAndTell } from './run.js';

export const BATCH_OPTIONS = {
  adapter: { type: 'string' },
  'time-limit': { type: 'string' },
  'notice-on': { type: 'string' },
  'notice-window': { type: 'string' },
  'notice-from': { type: 'string' },
  'notice-file': { type: 'string' },
  'notice-command': { type: 'string' },
  'requeue-exit-code': { type: 'string' },
  resubmit: { type: 'string' },
  json: { type: 'boolean' },
} as const;

export const REQUEUE_EXIT_CODE = 85;
/** What an application's own exit code becomes that would have the job run again for ever. */
const MAPPED_EXIT_CODE = 1;
/** With one of these for "run again", a job that cannot run would be run for ever. */
const FINAL_EXIT_CODES: readonly number[] = [MAPPED_EXIT_CODE, EXIT.usage, EXIT.failed, EXIT.restoreFailed];

export const batchCommand: Command = {
  name: 'batch',
  summary: 'Run an application under a batch system: frozen in time, continued by the retry',
  help: `Usage: fastfreeze batch run [OPTIONS] [--] COMMAND [ARGS...]
       fastfreeze batch explain [OPTIONS]
       fastfreeze batch job-definition aws [OPTIONS] [--] COMMAND [ARGS...]
       fastfreeze batch job gcp [OPTIONS] [--] COMMAND [ARGS...]
       fastfreeze batch rescue DIR

run: as fastfreeze run, with an image URL of the job's own, and notices: before the
time limit, or when the machine is taken away, the application is frozen, and the exit
code makes the batch system run the job again, which continues it. A job that an
earlier attempt has finished ends at once with the exit code that it had.
explain: prints what run would go by, and what is missing.
job-definition, job: print what AWS and Google Batch take; each has a --help.
rescue: for Slurm's epilog: finishes what the end of the job that left DIR has cut.

Options (run takes those of fastfreeze run as well):
      --adapter A            auto, slurm, aws-batch, gcp-batch, kubernetes, none [auto]
      --time-limit D         the job will be ended after D; it is frozen in time before
      --notice-on SIGS       signals that mean: freeze now, and leave [USR1,TERM]
      --notice-window D      from such a signal to the kill [what the system has]
      --notice-from LIST     whom to ask, instead of the system's own: ec2, gce, azure;
                             none: nobody
      --notice-file FILE     freeze and leave when FILE appears or changes; its first
                             line may say when the job will be ended: 90s, or a time
      --notice-command CMD   shell command that ends with 0 when the job should leave;
                             its first line likewise
      --requeue-exit-code N  of a job that wants to be run again [${REQUEUE_EXIT_CODE}]
      --resubmit N           AWS Batch: after its last attempt, submit a job that was
                             frozen again, N times at most [0]
      --json                 explain: print JSON, as docs/json.md describes

Environment:
  FASTFREEZE_IMAGE_BASE      instead of --image-base: where the images of all jobs are
  FASTFREEZE_JOB_ID          instead of the system's own name of the job; the index of a
                             task in its array is added, which it is not to --job-id
  FASTFREEZE_TIME_LIMIT, FASTFREEZE_RESUBMIT
                             instead of --time-limit and --resubmit
  AWS_EC2_METADATA_SERVICE_ENDPOINT, GCE_METADATA_HOST, FF_AZURE_METADATA_HOST
                             where the metadata services are

Exit status:
  the application's own, of this attempt or of an earlier one that finished it;
  an own exit code that equals --requeue-exit-code becomes ${MAPPED_EXIT_CODE}
   85  frozen, or never begun, because of a notice: run the same command again
  170  something failed before the application was ready; explain: something is missing
  171  the image could not be fetched or restored; nothing runs
    2  the command line is wrong
`,
  async ownWords([verb, ...rest]) {
    const words =
      (await (await printerOf(verb))?.ownWords?.(rest)) ?? ownWords(rest, { ...RUN_OPTIONS, ...BATCH_OPTIONS });
    return verb === undefined ? [] : [verb, ...words];
  },
  async helpOf([verb]) {
    return (await printerOf(verb))?.help;
  },
  async run(args) {
    const [verb, ...rest] = args;
    if (verb === 'explain') return await explain(rest);
    if (verb === 'run') return await runBatch(rest);
    if (verb === 'rescue') return await rescue(rescueDirectory(rest));
    const printer = await printerOf(verb);
    if (printer !== undefined) return await printer.run(rest);
    throw new FastFreezeError({
      code: 'usage',
      op: 'understand the command line',
      reason:
        verb === undefined
          ? 'batch needs run or explain'
          : `batch has run and explain, job-definition, job and rescue, not ${JSON.stringify(verb)}`,
      hint: 'fastfreeze batch run -- COMMAND',
    });
  },
};

/** What prints definitions of jobs is loaded when it is asked for: no job needs it. */
async function printerOf(verb: string | undefined): Promise<Command | undefined> {
  if (verb === 'job-definition') return (await import('./batch-job-definition.js')).jobDefinitionCommand;
  return verb === 'job' ? (await import('./batch-job.js')).jobCommand : undefined;
}

async function explain(args: readonly string[]): Promise<number> {
  const parsed = parseOptions(args, { ...RUN_OPTIONS, ...BATCH_OPTIONS }, false);
  const [word] = parsed.rest;
  if (word !== undefined) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'understand',
      subject: JSON.stringify(word),
      reason: 'batch explain takes no words',
      hint: 'fastfreeze batch explain --help',
    });
  }
  const known = readSetUp(parsed);
  const { system, requeueExitCode } = known;
  const asked = await system.inspect?.(requeueExitCode, new AbortController().signal);
  const found = asked === undefined ? known : withInspection(known, asked);
  const directory = pathOption(parsed, 'spool');
  const uploadsAfterwards = system.uploadsAfterwards?.() === true;
  const spool = directory === undefined ? undefined : { directory, uploadsAfterwards };
  process.stdout.write(flagOption(parsed, 'json') ? explainJson(found, spool) : explainText(found, spool));
  return found.findings.some(({ level }) => level === 'fail') ? EXIT.failed : EXIT.ok;
}

async function runBatch(args: readonly string[]): Promise<number> {
  const startedAtMs = Date.now();
  const parsed = parseOptions(args, { ...RUN_OPTIONS, ...BATCH_OPTIONS }, true);
  if (flagOption(parsed, 'json')) throw wrongValue('json', '', 'it belongs to batch explain');
  const lastActs: ((code: number) => Promise<number>)[] = [];
  const code = await runAndTell(parsed, startedAtMs, () => {
    const { lastAct, ...plan } = planBatch(parsed, startedAtMs);
    lastActs.push(lastAct);
    return plan;
  });
  return (await lastActs[0]?.(code)) ?? code;
}

function planBatch(
  parsed: ParsedArguments,
  startedAtMs: number,
): RunPlan & { readonly lastAct: (code: number) => Promise<number> } {
  const found = readSetUp(parsed);
  const failure = found.findings.find(({ level }) => level === 'fail') ?? found.system.against?.(parsed.rest);
  const { imageUrl } = found;
  if (failure !== undefined || imageUrl === undefined) {
    throw new FastFreezeError({
      code: found.system.name === 'aws-batch' && imageUrl !== undefined ? 'host' : 'usage',
      op: 'run under',
      subject: found.system.title,
      reason: failure?.what ?? 'there is no image URL',
      ...(failure === undefined ? {} : { hint: failure.remedy }),
    });
  }
  // The interval goes to whoever knows the deadlines: a checkpoint by timer must not be under way at the last moment.
  const { checkpointEveryMs, ...given } = toRunOptions(parsed, { url: imageUrl, given: true });
  const options = { ...given, returnFinished: true };
  const { verbosity, logFormat: format } = options;
  const log = createLogger({ command: 'batch', verbosity, format, startedAtMs });
  const attempt = found.system.attempt === undefined ? '' : `, attempt ${found.system.attempt}`;
  log.info(`Job ${found.key ?? imageUrl} of ${found.system.title}${attempt}; images go to ${imageUrl}`);
  const name = nameToContinue(found);
  if (name !== undefined) log.info(`Submitted again with FASTFREEZE_JOB_ID=${name}, it continues`);
  for (const { what, remedy } of found.findings) log.warn(`${what} (try: ${remedy})`);
  const { jobName, keep, spoolDirectory } = options;
  const run = { jobName, imageUrl, keep, ...(spoolDirectory === undefined ? {} : { spoolDirectory }) };
  const { lastAct: leave, mustUpload } = attend({ ...found, run, log });
  let isFrozen = false;
  const pilot = createPilot({
    sources: found.sources,
    stopSignals: found.signals,
    signalWindowMs: found.signalWindowMs,
    timer: isAuto(parsed) ? 'always' : checkpointEveryMs === undefined ? 'when-needed' : 'never',
    ...(checkpointEveryMs === undefined ? {} : { everyMs: checkpointEveryMs }),
    meanTimeToPreemptionMs: durationOption(parsed, 'mean-time-to-preemption') ?? ASSUMED_MTTP_MS,
    ...(spoolDirectory === undefined
      ? {}
      : { upload: () => (mustUpload() ? readSpool(spoolDirectory, imageUrl) : undefined) }),
    log,
  });
  const exitCode = (outcome: RunOutcome): Promise<number> => {
    const code = exitCodeOf(outcome, found.requeueExitCode);
    isFrozen = outcome.reason === CHECKPOINTED;
    if (code === found.requeueExitCode) log.info(`Exiting with exit_code=${code}: to be run again, and continued`);
    else if (outcome.exitCode === found.requeueExitCode && outcome.error === undefined) {
      log.warn(`the application's own exit code is ${outcome.exitCode}, which means "run again"; exiting with ${code}`);
    }
    return Promise.resolve(code);
  };
  const lastAct = async (code: number): Promise<number> => {
    const last = await leave(code, isFrozen);
    // The image must be where the next job looks for it.
    if (isFrozen) await resubmit({ env: process.env, system: found.system, key: found.key, most: found.resubmit, log });
    return last;
  };
  return { options, pilot, exitCode, lastAct };
}

function rescueDirectory(args: readonly string[]): string {
  const [directory, ...more] = args;
  if (directory !== undefined && more.length === 0) return directory;
  throw new FastFreezeError({
    code: 'usage',
    op: 'rescue',
    reason: 'it takes the folder that a job has left',
    hint: 'fastfreeze batch rescue DIR',
  });
}

/** What has another submission use the key of this one: the index of a task is added to it. Undefined where that was not so here. */
function nameToContinue({ key, system }: SetUp): string | undefined {
  if (system.key === undefined || key !== system.key) return undefined;
  const ending = system.taskIndex === undefined ? '' : `-${system.taskIndex}`;
  return key.endsWith(ending) ? key.slice(0, key.length - ending.length) : undefined;
}

/** What the batch system is told. */
export function exitCodeOf({ exitCode, reason, error }: RunOutcome, requeueExitCode: number): number {
  if (reason === CHECKPOINTED || reason === INTERRUPTED) return requeueExitCode;
  if (error !== undefined) return error.code === 'aborted' ? requeueExitCode : exitCode;
  return exitCode === requeueExitCode ? MAPPED_EXIT_CODE : exitCode;
}

function readSetUp(parsed: ParsedArguments): SetUp {
  const { env } = process;
  const system = chooseSystem(adapterOption(parsed), env);
  const optional = <K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> =>
    value === undefined ? {} : ({ [key]: value } as Record<K, V>);
  return setUp({
    system,
    env,
    nowMs: Date.now(),
    ...placeOptions(parsed),
    ...optional('timeLimitMs', durationOption(parsed, 'time-limit') ?? limitVariable(env)),
    signals: signalNames('notice-on', textOption(parsed, 'notice-on') ?? 'USR1,TERM'),
    ...optional('signalWindowMs', durationOption(parsed, 'notice-window')),
    ...optional('sources', sourcesOption(parsed, env)),
    moreSources: localSources(parsed),
    requeueExitCode: requeueOption(parsed),
    resubmit: resubmitOption(parsed, env),
  });
}

function placeOptions(parsed: ParsedArguments): { imageUrl?: string; imageBase?: string; jobId?: string } {
  const imageUrl = textOption(parsed, 'image-url');
  const imageBase = textOption(parsed, 'image-base');
  const jobId = textOption(parsed, 'job-id');
  if (imageUrl !== undefined && (imageBase !== undefined || jobId !== undefined)) {
    throw wrongValue('image-url', imageUrl, 'give either --image-url, or --image-base and --job-id');
  }
  return {
    ...(imageUrl === undefined ? {} : { imageUrl }),
    ...(imageBase === undefined ? {} : { imageBase }),
    ...(jobId === undefined ? {} : { jobId }),
  };
}

function adapterOption(parsed: ParsedArguments): SystemName | 'auto' {
  const text = textOption(parsed, 'adapter') ?? 'auto';
  const found = (['auto', ...SYSTEM_NAMES] as const).find((name) => name === text);
  if (found === undefined) throw wrongValue('adapter', text, `expected auto or ${SYSTEM_NAMES.join(', ')}`);
  return found;
}

function limitVariable(env: NodeJS.ProcessEnv): number | undefined {
  const text = valueOf(env, 'FASTFREEZE_TIME_LIMIT');
  if (text === undefined) return undefined;
  const limitMs = parseDuration(text);
  if (limitMs !== undefined && limitMs > 0) return limitMs;
  throw new FastFreezeError({
    code: 'usage',
    op: 'understand',
    subject: `FASTFREEZE_TIME_LIMIT=${text}`,
    reason: 'expected a duration such as 90s, 5m or 1h30m',
    hint: 'a bare number counts seconds',
  });
}

function sourcesOption(parsed: ParsedArguments, env: NodeJS.ProcessEnv): NoticeSource[] | undefined {
  const text = textOption(parsed, 'notice-from');
  if (text === undefined) return undefined;
  return text.split(',').flatMap((word) => {
    if (isCloud(word)) return cloudSources(word, env);
    if (word === 'none') return [];
    throw wrongValue('notice-from', word, 'expected ec2, gce, azure or none; several with commas');
  });
}

function localSources(parsed: ParsedArguments): NoticeSource[] {
  const path = textOption(parsed, 'notice-file');
  const command = textOption(parsed, 'notice-command');
  return [
    ...(path === undefined ? [] : [fileSource(path, { parseDuration })]),
    ...(command === undefined ? [] : [commandSource(command, { parseDuration })]),
  ];
}

export function requeueOption(parsed: ParsedArguments): number {
  const code = countOption(parsed, 'requeue-exit-code', REQUEUE_EXIT_CODE, 1);
  if (code > 255) throw wrongValue('requeue-exit-code', String(code), 'expected an exit code from 1 to 255');
  if (!FINAL_EXIT_CODES.includes(code)) return code;
  throw wrongValue('requeue-exit-code', String(code), 'it means that running the job again would not help');
}
