// SPDX-License-Identifier: Apache-2.0
import { GcsFake } from './gcs-fake.js';
import { startHttpFront, type Dialect, type HttpFront } from './http-front.js';
import { startMoto } from './moto.js';
import { TcpProxy } from './tcp-proxy.js';

/** A service with a bucket `jobs`, and between it and whoever uses it all that can fail: a network, then a front. */
export interface Cloud {
  readonly scheme: Dialect;
  readonly proxy: TcpProxy;
  readonly front: HttpFront;
  /** For who looks at it from outside: no fault in between. */
  readonly directEnv: Readonly<Record<string, string>>;
  /** For a job: all of it goes through the network, and requests are tried again for so long. */
  jobEnv(retryS: number): Record<string, string>;
  /** What it has stored it still has when it comes `back`. */
  die(): Promise<void>;
  back(): Promise<void>;
  /** Everything works. */
  heal(): Promise<void>;
  stop(): Promise<void>;
}

export async function startCloud(scheme: Dialect): Promise<Cloud> {
  const server = scheme === 's3' ? await startS3() : await startGs();
  const front = await startHttpFront(server.url, scheme);
  const proxy = await TcpProxy.start(front.url);
  const cloud: Cloud = {
    scheme,
    proxy,
    front,
    directEnv: server.env,
    jobEnv: (retryS) => ({
      ...server.env,
      [server.endpointVariable]: proxy.url,
      FF_STORE_RETRY_S: String(retryS),
    }),
    async die() {
      proxy.refuse();
      await server.die();
    },
    async back() {
      await server.back();
      await proxy.accept();
    },
    async heal() {
      front.refuse = () => undefined;
      await server.back();
      await proxy.heal();
    },
    async stop() {
      proxy.stop();
      await front.stop();
      await server.stop();
    },
  };
  return cloud;
}

interface Server {
  readonly url: string;
  readonly env: Readonly<Record<string, string>>;
  readonly endpointVariable: string;
  die(): Promise<void>;
  back(): Promise<void>;
  stop(): Promise<void>;
}

/** moto keeps everything in memory: its death is that of the network before it. */
async function startS3(): Promise<Server> {
  const moto = await startMoto();
  await moto.makeBucket('jobs');
  return {
    url: moto.url,
    env: moto.env,
    endpointVariable: 'AWS_ENDPOINT_URL_S3',
    die: () => Promise.resolve(),
    back: () => Promise.resolve(),
    stop: () => moto.stop(),
  };
}

async function startGs(): Promise<Server> {
  const fake = await GcsFake.start();
  fake.makeBucket('jobs');
  return {
    url: fake.url,
    env: fake.env,
    endpointVariable: 'STORAGE_EMULATOR_HOST',
    die: () => fake.halt(),
    back: () => fake.restart(),
    stop: () => fake.stop(),
  };
}
