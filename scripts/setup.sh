#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes everything that the tests, the demo and the benchmark need on a Debian machine with Node >= 20.15: npm packages, Debian packages, the
# build, and a CRIU that works. Says one line per step that has something to do; nothing is done twice.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}
# Runs a step quietly; its output is shown only when it fails.
quietly() {
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    rm -f "$log"
  else
    cat "$log" >&2
    rm -f "$log"
    die "failed: $*"
  fi
}

# One of the packages is a Node.js of its own, of the version that runs actions; npm puts it before everybody's on PATH of its scripts.
rm -f node_modules/.bin/node

command -v node >/dev/null || die 'Node.js >= 20.15 is needed'
[ "$(node -p 'const [major, minor] = process.versions.node.split("."); major * 1000 + Number(minor)')" -ge 20015 ] ||
  die "Node.js >= 20.15 is needed, this is $(node -v)"

# Several of these may run at once (two terminals, a test of the set-up itself): the first does it, the others wait.
# The checkout itself is the lock, so that no file is left anywhere.
if command -v flock >/dev/null; then
  exec 9<.
  flock 9
fi

if [ ! -d node_modules/.bin ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say 'npm packages'
  # koffi ships its binaries as packages: no install script is needed, and none is run. `npm ci` wants every platform's optional package in
  # the lock file and refuses where npm could not record them all; `npm install --no-save` takes the same locked versions without that.
  flags='--ignore-scripts --no-audit --no-fund --loglevel=error'
  # shellcheck disable=SC2086 # several words
  npm ci $flags >/dev/null 2>&1 || quietly npm install --no-save $flags
  rm -f node_modules/.bin/node
  touch node_modules/.package-lock.json
fi

# command:package
missing=
for pair in unshare:util-linux setpriv:util-linux nsenter:util-linux newuidmap:uidmap script:bsdutils flock:util-linux python3:python3 ps:procps dpkg-deb:dpkg mmdebstrap:mmdebstrap xz:xz-utils strip:binutils ip:iproute2; do
  command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
  if [ "$(id -u)" -ne 0 ]; then
    say "not root, so these Debian packages are not installed:$missing (as root: apt-get install$missing)"
  else
    say "Debian packages:$missing"
    quietly apt-get update -q
    # shellcheck disable=SC2086 # a list
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
  fi
fi

if [ ! -e lib/cli/main.js ] || [ -n "$(find src package.json tsconfig.json tsconfig.build.json scripts/bundle-sdks.mjs -newer lib/.built 2>/dev/null | head -n 1)" ] || [ ! -e lib/.built ]; then
  say 'build'
  # What the sources no longer have must not linger in the build.
  rm -rf lib
  quietly npm run --silent build
  touch lib/.built
fi

say "CRIU runtime ($(bin/fastfreeze --version))"
quietly bin/fastfreeze install
