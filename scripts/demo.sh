#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Freezes a real job, thaws it in another container, twice, and compares every line of its output. Ends with an error if one line is lost,
# repeated or wrong. Works as root and as a normal user, and leaves nothing behind.
set -eu
cd "$(dirname "$0")/.."

LINES=300
sh scripts/setup.sh

work=$(mktemp -d "${TMPDIR:-/tmp}/ff-demo.XXXXXX")
job=
clean() {
  trap - EXIT INT TERM HUP
  # The launcher passes TERM on to the job, whose end is the end of its container.
  if [ -n "$job" ]; then
    kill -TERM "$job" 2>/dev/null || true
    wait "$job" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap clean EXIT
trap 'clean; exit 130' INT
trap 'clean; exit 143' TERM HUP

FF_LOG_DIR=$work/log
export FF_LOG_DIR
image=$work/image
out=$work/output
: >"$out"

bold= plain=
if [ -t 1 ]; then
  bold=$(printf '\033[1m')
  plain=$(printf '\033[0m')
fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
die() {
  printf '\ndemo: %s\n' "$*" >&2
  [ ! -s "$work/messages" ] || sed 's/^/  | /' "$work/messages" >&2
  exit 1
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }
count_lines() { wc -l <"$out"; }
field() { sed "s/.*\"$1\":\([0-9]*\).*/\1/" "$work/checkpoint.json"; }
seconds() { echo "$1" | awk '{ printf "%.2f s", $1 / 1000 }'; }
mebibytes() { echo "$1" | awk '{ printf "%.1f MiB", $1 / 1048576 }'; }

# on HOST COMMAND...: become the command, on a machine of another name where we may have one. The container, its process numbers and the
# empty state directory are new for everybody.
on() {
  host=$1
  shift
  [ "$has_hosts" = no ] || exec unshare --uts sh -c 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"' "$host" "$@"
  exec "$@"
}
has_hosts=no
if [ "$(id -u)" -eq 0 ] && unshare --uts true 2>/dev/null; then has_hosts=yes; fi

# start HOST: the same command line every time. What it does depends on what the image URL holds.
start() {
  FF_STATE_DIR=$work/state-of-$1
  export FF_STATE_DIR
  rm -f "$work/ready"
  started_ms=$(now_ms)
  on "$1" timeout --kill-after=10 120 bin/fastfreeze run --image-url "file:$image" --container demo \
    --on-app-ready "date +%s%N >$work/ready.new && mv $work/ready.new $work/ready" -- \
    python3 examples/demo/primes.py "$LINES" </dev/null >>"$out" 2>>"$work/messages" &
  job=$!
  tries=0
  until [ -s "$work/ready" ]; do
    tries=$((tries + 1))
    kill -0 "$job" 2>/dev/null || die 'the job ended before it was ready:'
    [ "$tries" -lt 600 ] || die 'the job was not ready after 60 s:'
    sleep 0.1
  done
  ready_ms=$(($(cat "$work/ready") / 1000000 - started_ms))
}

# until_lines N: let the job print so many.
until_lines() {
  tries=0
  while [ "$(count_lines)" -lt "$1" ]; do
    tries=$((tries + 1))
    kill -0 "$job" 2>/dev/null || die "the job ended after $(count_lines) lines:"
    [ "$tries" -lt 600 ] || die "the job printed no more than $(count_lines) lines in 60 s:"
    sleep 0.1
  done
}

# ended CODE: wait for the end of the job and compare.
ended() {
  code=0
  wait "$job" || code=$?
  job=
  [ "$code" -eq "$1" ] || die "run ended with exit code $code, not $1:"
}

freeze() {
  timeout --kill-after=10 60 bin/fastfreeze checkpoint --json demo >"$work/checkpoint.json" 2>>"$work/messages" || die 'the checkpoint failed:'
  ended 137
  last=$(count_lines)
  printf '  freeze     %s from the first stopped process until the image was durable\n' "$(seconds "$(field frozenMs)")"
  printf '  image      %s of memory and state, %s stored as generation %s\n' "$(mebibytes "$(field rawBytes)")" \
    "$(mebibytes "$(field storedBytes)")" "$(field generation)"
  printf '  last line  %s\n' "$(tail -n 1 "$out")"
  seams="${seams:-}$last "
}

title 'A job: two processes, a pipe between them, 32 MiB of noise in memory'
echo "  \$ fastfreeze run --image-url file:... -- python3 examples/demo/primes.py $LINES"
start machine-one
printf '  started    %s\n' "$(seconds "$ready_ms")"
until_lines 80
title 'Freeze it'
echo '  $ fastfreeze checkpoint'
freeze
echo '  files of the image'
find "$image" -type f -printf '    %10s bytes  %f\n' | sort -k3

for place in machine-two machine-three; do
  where='a new container'
  [ "$has_hosts" = no ] || where="$where on $place"
  title "The same command again, in $where"
  start "$place"
  until_lines $((last + 1))
  printf '  restore    %s from the start of the command until the job ran (%s of it for the image)\n' "$(seconds "$ready_ms")" \
    "$(sed -n 's/.*Application is ready, restore took //p' "$work/messages" | tail -n 1)"
  printf '  next line  %s\n' "$(sed -n "$((last + 1))p" "$out")"
  [ "$place" = machine-two ] || continue
  until_lines $((last + 80))
  title 'Freeze it once more'
  freeze
done

title 'Let it finish'
ended 0
printf '  last words %s\n' "$(tail -n 1 "$out")"

title 'Compare all lines of all three lives with what they must be'
if ! python3 examples/demo/primes.py --check "$LINES" <"$out" >"$work/verdict"; then
  cat "$work/verdict" >&2
  : >"$work/messages"
  die 'FAILED: the job did not continue exactly'
fi
# shellcheck disable=SC2086 # a list of two numbers
printf '  %s lines, frozen after line %s and line %s: none lost, none repeated, every checksum right\n' "$LINES" $seams
