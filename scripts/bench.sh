#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiles the benchmark and runs it: `npm run bench -- --help`.
set -eu
cd "$(dirname "$0")/.."

sh scripts/setup.sh >&2
# command:package; only root can make links to upload over
pairs='lz4:lz4 tar:tar'
[ "$(id -u)" -ne 0 ] || pairs="$pairs ip:iproute2"
for pair in $pairs; do
  command -v "${pair%%:*}" >/dev/null && continue
  [ "$(id -u)" -eq 0 ] || {
    echo "bench: install ${pair##*:}" >&2
    exit 1
  }
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${pair##*:}" >/dev/null
done
node_modules/.bin/tsc -p tsconfig.test.json
exec node --no-warnings .build/bench/main.js "$@"
