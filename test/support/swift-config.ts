// SPDX-License-Identifier: Apache-2.0

/** Where its five daemons listen. */
export interface SwiftPorts {
  readonly proxy: number;
  readonly account: number;
  readonly container: number;
  readonly object: number;
  readonly memcached: number;
}

/** The files of /etc/swift, and the script that starts everything inside the root. */
export function swiftFiles(ports: SwiftPorts): Readonly<Record<string, string>> {
  return {
    'swift.conf': ini({
      'swift-hash': { swift_hash_path_suffix: 'test' },
      'storage-policy:0': { name: 'only', default: 'yes' },
    }),
    'account-server.conf': storageServer('account', ports.account),
    'container-server.conf': storageServer('container', ports.container),
    'object-server.conf': storageServer('object', ports.object),
    'proxy-server.conf': proxyServer(ports),
    'rings.py': rings(ports),
    'start.sh': start(ports),
  };
}

const COMMON = { user: 'root', bind_ip: '127.0.0.1', workers: '0' };

function storageServer(kind: 'account' | 'container' | 'object', port: number): string {
  return ini({
    DEFAULT: {
      ...COMMON,
      bind_port: String(port),
      devices: '/srv/node',
      mount_check: 'false',
      // Room is not the question here.
      disable_fallocate: 'true',
      fallocate_reserve: '0',
      // A listing is right at once, or late when a loaded machine has not told the container in time: nobody brings it up to date.
      container_update_timeout: '30',
      conn_timeout: '10',
      node_timeout: '30',
    },
    'pipeline:main': { pipeline: `${kind}-server` },
    [`app:${kind}-server`]: { use: `egg:swift#${kind}` },
  });
}

/** Both of its interfaces: s3api is what is tested, tempauth is how a bucket is made without an S3 client. */
function proxyServer({ proxy, memcached }: SwiftPorts): string {
  const filters = Object.fromEntries(
    ['catch_errors', 'gatekeeper', 'listing_formats', 'bulk', 'copy', 'slo', 'versioned_writes', 'symlink'].map(
      (name) => [`filter:${name}`, { use: `egg:swift#${name}` }],
    ),
  );
  return ini({
    DEFAULT: { ...COMMON, bind_port: String(proxy) },
    'pipeline:main': {
      pipeline:
        'catch_errors gatekeeper cache listing_formats bulk s3api tempauth copy slo versioned_writes symlink proxy-server',
    },
    'app:proxy-server': {
      use: 'egg:swift#proxy',
      account_autocreate: 'true',
      conn_timeout: '10',
      node_timeout: '60',
      recoverable_node_timeout: '60',
    },
    ...filters,
    'filter:cache': { use: 'egg:swift#memcache', memcache_servers: `127.0.0.1:${memcached}` },
    'filter:tempauth': { use: 'egg:swift#tempauth', user_test_tester: 'testing .admin' },
    'filter:s3api': { use: 'egg:swift#s3api', location: 'us-east-1' },
  });
}

function ini(sections: Readonly<Record<string, Readonly<Record<string, string>>>>): string {
  return Object.entries(sections)
    .map(
      ([name, values]) =>
        `[${name}]\n${Object.entries(values)
          .map(([key, value]) => `${key} = ${value}\n`)
          .join('')}`,
    )
    .join('\n');
}

/** What swift-ring-builder does, by nine starts of Python less. */
function rings({ account, container, object }: SwiftPorts): string {
  return `
from swift.common.ring import RingBuilder
for kind, port in (('account', ${account}), ('container', ${container}), ('object', ${object})):
    builder = RingBuilder(4, 1, 1)
    builder.add_dev({'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': port, 'device': 'disk', 'weight': 1,
                     'replication_ip': '127.0.0.1', 'replication_port': port, 'meta': ''})
    builder.rebalance()
    builder.get_ring().save('/etc/swift/%s.ring.gz' % kind)
`;
}

/** PID 1 of its namespace: when our end of its standard input closes, in whatever way, it ends and everything with it. */
function start({ memcached }: SwiftPorts): string {
  return `
set -eu
memcached -u root -l 127.0.0.1 -p ${memcached} -U 0 -m 64 &
python3 /etc/swift/rings.py
for kind in account container object proxy; do
  swift-$kind-server /etc/swift/$kind-server.conf --verbose >/srv/log/$kind 2>&1 </dev/null &
done
cat >/dev/null
`;
}
