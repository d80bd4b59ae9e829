// SPDX-License-Identifier: Apache-2.0
import http from 'node:http';
import https from 'node:https';

/** The connections to a service, which are kept for the next request. */
export interface Agents {
  readonly http: http.Agent;
  readonly https: https.Agent;
  /**
   * Close those that wait for a request. Where one stood still, or was cut, the others have often gone with it (a firewall
   * that was restarted, an address that has moved), and each would have to be found out by a request that waits in vain.
   */
  closeIdle(): void;
}

export function createAgents(options: http.AgentOptions): Agents {
  const agents = { http: new http.Agent(options), https: new https.Agent(options) };
  return {
    ...agents,
    closeIdle() {
      for (const { freeSockets } of [agents.http, agents.https]) {
        for (const socket of Object.values(freeSockets).flat()) socket?.destroy();
      }
    },
  };
}
