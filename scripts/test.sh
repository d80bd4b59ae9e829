#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The whole check: set-up, lint, format, types, unit tests, integration tests with a real CRIU. `--full` runs every campaign at full length.
# Other arguments go to jest and choose tests (then the static checks are left out): scripts/test.sh test/integration/stdio
set -eu
cd "$(dirname "$0")/.."

full=
if [ "${1:-}" = --full ]; then
  full=1
  shift
fi
[ -z "$full" ] || export FF_TEST_FULL=1

sh scripts/setup.sh

step() { printf 'test: %s\n' "$*"; }
failed=
check() {
  step "$1"
  shift
  "$@" || failed="$failed, $1 $2"
}
FF_TEST_COUNTS=$(mktemp)
export FF_TEST_COUNTS
lint_log=$(mktemp)
lint=
trap 'rm -f "$FF_TEST_COUNTS" "$lint_log"; [ -z "$lint" ] || kill "$lint" 2>/dev/null || true' EXIT

step "Node.js $(node -v)"
if [ $# -eq 0 ]; then
  step 'lint, beside what follows'
  node_modules/.bin/eslint . >"$lint_log" 2>&1 &
  lint=$!
  check format node_modules/.bin/prettier --check --log-level warn .
fi

# The same files and options as tsconfig.json has.
step 'check the types, and compile the tests'
rm -rf .build
node_modules/.bin/tsc -p tsconfig.test.json
# A suite loads them as slowly as a job does.
node scripts/bundle-sdks.mjs .build/src
# The sources find the version two folders above themselves, compiled here or there.
cp package.json .build/

if [ -n "$lint" ]; then
  wait "$lint" || failed="$failed, lint"
  lint=
  cat "$lint_log"
fi

NODE_OPTIONS="--experimental-vm-modules --no-warnings ${NODE_OPTIONS:-}"
export NODE_OPTIONS
[ $# -eq 0 ] || set -- --testPathPatterns "$@"
for project in unit integration; do
  step "$project tests"
  node_modules/.bin/jest --selectProjects "$project" --passWithNoTests "$@" || failed="$failed, $project tests"
done

node scripts/closing-line.mjs "$FF_TEST_COUNTS" || failed="$failed, skipped tests"
[ -z "$failed" ] || {
  printf 'test: failed: %s\n' "${failed#, }" >&2
  exit 1
}
