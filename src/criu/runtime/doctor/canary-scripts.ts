// SPDX-License-Identifier: Apache-2.0

// Shell, because a process must be started, dumped and restored inside the container and nothing may stand
// between: every program more would be one more reason to fail. All words come as arguments.

/**
 * Descriptors that leak from whoever started us (batch systems and editors do that) name files of the outer
 * mount namespace, which CRIU refuses. Only bash can close those above 9.
 */
const CLOSE_LEAKED = `
exec </dev/null
for path in /proc/$$/fd/*; do
  fd=\${path##*/}
  case $fd in
    0|1|2|255) ;;
    [3-9]) eval "exec $fd>&-" ;;
    *) [ -z "\${BASH_VERSION:-}" ] || eval "exec $fd>&-" ;;
  esac
done
`;

/**
 * The process that is frozen: counts into its output until it is told to stop. It starts no other program: a
 * child that ends while CRIU collects the tree makes CRIU give up, which says nothing about the machine.
 */
export const COUNTER = `
count=0
turns=0
while :; do
  turns=$((turns + 1))
  if [ "$turns" -ge 2000 ]; then
    turns=0
    count=$((count + 1))
    echo "$count $$"
    [ ! -e stop ] || break
  fi
done
echo end
`;

/** Start the counter, wait until it counts, dump it. Arguments: folder, last PID, criu command. */
export const DUMP_SCRIPT = `${CLOSE_LEAKED}
cd "$1" || exit 90
echo "$2" >/proc/sys/kernel/ns_last_pid || exit 91
shift 2
setsid sh counter </dev/null >out 2>/dev/null &
counter=$!
tries=0
until [ "$(wc -l <out)" -ge 3 ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 250 ] || exit 92
  sleep 0.02
done
exec "$@" --tree "$counter"
`;

/** Restore it, wait until it has counted on, tell it to stop, wait until it has. Arguments: as above. */
export const RESTORE_SCRIPT = `${CLOSE_LEAKED}
cd "$1" || exit 90
echo "$2" >/proc/sys/kernel/ns_last_pid || exit 91
shift 2
before=$(wc -l <out)
"$@" || exit 93
tries=0
until [ "$(wc -l <out)" -ge $((before + 3)) ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 250 ] || exit 94
  sleep 0.02
done
: >stop
until [ "$(tail -n 1 out)" = end ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 500 ] || exit 95
  sleep 0.02
done
`;
