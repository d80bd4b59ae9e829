// SPDX-License-Identifier: Apache-2.0

/**
 * How fast checkpoints of a job have been. Kept in its manifests and refined by each checkpoint, so that a retry on
 * another machine knows it before it has made one of its own (docs/planner.md).
 */
export interface Pace {
  /** From the request to the frozen tree, and for images too small to tell rates, all but the freeze itself. */
  readonly fixedMs: number;
  /** The part of a freeze that does not depend on the image's size. */
  readonly pauseMs: number;
  readonly captureBytesPerSecond: number;
  /** Of stored bytes: after compression. */
  readonly uploadBytesPerSecond: number;
  /** Bytes stored for each byte of the image. */
  readonly storedRatio: number;
  /** What images have beside the resident memory: preserved files, swapped pages. */
  readonly besideBytes: number;
  readonly samples: number;
  /** Those that were large enough to tell rates. */
  readonly rateSamples: number;
  /** Where images are spooled: how they got from there to where they belong. */
  readonly copying?: CopyPace;
}

/** How fast images have been copied out of a spool. */
export interface CopyPace {
  /** For an image too small to tell a rate. */
  readonly fixedMs: number;
  readonly bytesPerSecond: number;
}

/** One checkpoint, as it went. */
export interface PaceSample {
  readonly residentBytes: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** From the request until the tree was frozen. */
  readonly preparingMs: number;
  /** From there until all of it was read. */
  readonly capturingMs: number;
  /** From the request until all was durable but the manifest. */
  readonly durableMs: number;
}

/** What is assumed before anything was measured: a slow disk, a slow network, memory that does not compress. */
export const ASSUMED_PACE: Pace = {
  fixedMs: 2_000,
  pauseMs: 100,
  captureBytesPerSecond: 200 * 2 ** 20,
  uploadBytesPerSecond: 50 * 2 ** 20,
  storedRatio: 1,
  besideBytes: 0,
  samples: 0,
  rateSamples: 0,
};

/** Likewise, with the start of the process that copies. */
export const ASSUMED_COPY_PACE: CopyPace = { fixedMs: 2_000, bytesPerSecond: 50 * 2 ** 20 };

/** Below this, latencies are measured, not rates. */
const MIN_RATE_BYTES = 16 * 2 ** 20;

/**
 * The pace with one more checkpoint in it. What is worse than before counts at once, what is better by half: a plan
 * that is too careful costs a little work, one that is too bold costs all since the last checkpoint.
 */
export function refinePace(before: Pace, sample: PaceSample): Pace {
  const { residentBytes, rawBytes, storedBytes, preparingMs, capturingMs, durableMs } = sample;
  const isFirst = before.samples === 0;
  const slower = (old: number, now: number): number => Math.ceil(isFirst ? now : Math.max(now, (old + now) / 2));
  const common = {
    besideBytes: slower(before.besideBytes, Math.max(0, rawBytes - residentBytes)),
    samples: before.samples + 1,
    ...(before.copying === undefined ? {} : { copying: before.copying }),
  };
  if (rawBytes < MIN_RATE_BYTES) {
    const fixedMs = slower(before.fixedMs, Math.max(0, durableMs - capturingMs));
    return { ...before, ...common, fixedMs, pauseMs: slower(before.pauseMs, capturingMs) };
  }
  const known = before.rateSamples > 0;
  const rate = (old: number, bytes: number, ms: number): number => {
    const now = bytes / (Math.max(ms, 1) / 1000);
    return Math.max(1, Math.floor(known ? Math.min(now, (old + now) / 2) : now));
  };
  const ratio = storedBytes / rawBytes;
  return {
    ...common,
    fixedMs: slower(before.fixedMs, preparingMs),
    pauseMs: before.pauseMs,
    captureBytesPerSecond: rate(before.captureBytesPerSecond, rawBytes, capturingMs),
    uploadBytesPerSecond: rate(before.uploadBytesPerSecond, storedBytes, durableMs - preparingMs),
    storedRatio: known ? Math.max(ratio, (before.storedRatio + ratio) / 2) : ratio,
    rateSamples: before.rateSamples + 1,
  };
}

/**
 * What another machine has found, where this one has copied nothing yet: half as much of it counts as before. A bad moment of one
 * uplink must not hold back every attempt after it.
 */
export function inheritedCopyPace({ fixedMs, bytesPerSecond }: CopyPace): CopyPace {
  return {
    fixedMs: Math.ceil((fixedMs + ASSUMED_COPY_PACE.fixedMs) / 2),
    bytesPerSecond: Math.ceil((bytesPerSecond + ASSUMED_COPY_PACE.bytesPerSecond) / 2),
  };
}

/** As `refinePace`, with one more copy in it. Undefined before the first. */
export function refineCopyPace(before: CopyPace | undefined, copiedBytes: number, durationMs: number): CopyPace {
  const { fixedMs, bytesPerSecond } = before ?? ASSUMED_COPY_PACE;
  if (copiedBytes < MIN_RATE_BYTES) {
    const slower = before === undefined ? durationMs : Math.max(durationMs, (fixedMs + durationMs) / 2);
    return { fixedMs: Math.ceil(slower), bytesPerSecond };
  }
  const now = copiedBytes / (Math.max(durationMs, 1) / 1000);
  const slower = before === undefined ? now : Math.min(now, (bytesPerSecond + now) / 2);
  return { fixedMs, bytesPerSecond: Math.max(1, Math.floor(slower)) };
}

/** Undefined for what is none, or is damaged. */
export function parseCopyPace(json: unknown): CopyPace | undefined {
  if (typeof json !== 'object' || json === null) return undefined;
  const { fixedMs, bytesPerSecond } = json as Record<string, unknown>;
  const isSound = (value: unknown, least: number): value is number =>
    Number.isSafeInteger(value) && Number(value) >= least;
  return isSound(fixedMs, 0) && isSound(bytesPerSecond, 1) ? { fixedMs, bytesPerSecond } : undefined;
}

/** Out of a manifest. Undefined for one that has none, or no sound one: it is advice, and no reason to refuse an image. */
export function parsePace(json: unknown): Pace | undefined {
  if (typeof json !== 'object' || json === null) return undefined;
  const found = json as Record<string, unknown>;
  const pace: Record<string, number> = {};
  for (const [name, assumed] of Object.entries(ASSUMED_PACE) as [string, number][]) {
    const value = found[name];
    if (typeof value !== 'number' || !Number.isFinite(value) || value < 0 || value > Number.MAX_SAFE_INTEGER) {
      return undefined;
    }
    // A rate of 0 would mean that nothing is ever done.
    if (value === 0 && name.endsWith('PerSecond')) return undefined;
    if (Number.isInteger(assumed) && name !== 'storedRatio' && !Number.isInteger(value)) return undefined;
    pace[name] = value;
  }
  const copying = parseCopyPace(found['copying']);
  return { ...(pace as unknown as Pace), ...(copying === undefined ? {} : { copying }) };
}
