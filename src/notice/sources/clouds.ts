// SPDX-License-Identifier: Apache-2.0
import type { NoticeSource } from '../notice.js';
import { azureSource } from './azure.js';
import { gceMaintenanceSource, gcePreemptedSource } from './gce.js';
import { imdsSource } from './imds.js';

/** Clouds whose metadata tell a machine that it will be taken away. */
const CLOUDS = ['ec2', 'gce', 'azure'] as const;
export type Cloud = (typeof CLOUDS)[number];

export function isCloud(word: string): word is Cloud {
  return CLOUDS.some((cloud) => cloud === word);
}

/** Whom to ask in a cloud. */
export function cloudSources(cloud: Cloud, env: NodeJS.ProcessEnv): NoticeSource[] {
  switch (cloud) {
    case 'ec2':
      return [imdsSource({ env })];
    case 'gce':
      return [gcePreemptedSource({ env }), gceMaintenanceSource({ env })];
    case 'azure':
      return [azureSource({ env })];
  }
}
