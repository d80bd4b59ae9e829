// SPDX-License-Identifier: Apache-2.0
import { given, pairs, wrongSetting } from '../object/settings.js';

/** What the SDK's own chain does not know, out of `FF_GS_*`. */
export interface GsSettings {
  /** Who pays for the requests, where the bucket's owner does not. */
  readonly userProject?: string;
  readonly kmsKeyName?: string;
  /** Fields of every object that is made. */
  readonly object: {
    readonly storageClass?: string;
    readonly metadata?: Readonly<Record<string, string>>;
  };
}

const KMS_KEY = /^projects\/[^/]+\/locations\/[^/]+\/keyRings\/[^/]+\/cryptoKeys\/[^/]+$/u;
const PROJECT = /^(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*$/u;
const STORAGE_CLASSES = ['STANDARD', 'NEARLINE', 'COLDLINE', 'ARCHIVE'];

/** Throws `usage` for a value that the service does not take. */
export function readGsSettings(env: NodeJS.ProcessEnv): GsSettings {
  const userProject = matching(env, 'FF_GS_USER_PROJECT', PROJECT, 'the ID of a project');
  const kmsKeyName = matching(
    env,
    'FF_GS_KMS_KEY',
    KMS_KEY,
    'projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY',
  );
  const storageClass = given(env, 'FF_GS_STORAGE_CLASS');
  if (storageClass !== undefined && !STORAGE_CLASSES.includes(storageClass)) {
    throw wrongSetting('FF_GS_STORAGE_CLASS', storageClass, STORAGE_CLASSES.join(', '));
  }
  const metadata = given(env, 'FF_GS_METADATA');
  return {
    ...(userProject === undefined ? {} : { userProject }),
    ...(kmsKeyName === undefined ? {} : { kmsKeyName }),
    object: {
      ...(storageClass === undefined ? {} : { storageClass }),
      ...(metadata === undefined ? {} : { metadata: Object.fromEntries(pairs('FF_GS_METADATA', metadata)) }),
    },
  };
}

function matching(env: NodeJS.ProcessEnv, name: string, pattern: RegExp, wanted: string): string | undefined {
  const value = given(env, name);
  if (value !== undefined && !pattern.test(value)) throw wrongSetting(name, value, wanted);
  return value;
}
