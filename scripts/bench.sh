#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compiles the benchmark and runs it: `npm run bench -- --help`.
set -eu
cd "$(dirname "$0")/.."

sh scripts/setup.sh >&2
for command in lz4 tar; do
  command -v "$command" >/dev/null && continue
  [ "$(id -u)" -eq 0 ] || {
    echo "bench: install $command" >&2
    exit 1
  }
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$command" >/dev/null
done
node_modules/.bin/tsc -p tsconfig.test.json
exec node --no-warnings .build/bench/main.js "$@"
