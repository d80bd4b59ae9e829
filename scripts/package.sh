#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes build/fastfreeze-linux-x64.tar.xz: Node.js, CRIU, their libraries and our code, for machines that have none of them. The same commit
# gives the same bytes on the same machine. --out DIR is instead of build. For tests: --fast gives the same contents, hardly compressed;
# --no-setup is for where scripts/setup.sh has just been run.
set -eu
cd "$(dirname "$0")/.."

out=build
level='-9e'
setup=1
while [ $# -gt 0 ]; do
  case $1 in
    --fast) level='-0' ;;
    --no-setup) setup= ;;
    --out)
      out=$2
      shift
      ;;
    *)
      echo "package: unknown option: $1" >&2
      exit 2
      ;;
  esac
  shift
done

[ -z "$setup" ] || sh scripts/setup.sh
for pair in tar:tar xz:xz-utils strip:binutils ldd:libc-bin dpkg-query:dpkg; do
  command -v "${pair%%:*}" >/dev/null || {
    printf 'package: %s is missing: apt-get install %s\n' "${pair%%:*}" "${pair##*:}" >&2
    exit 1
  }
done

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/.package-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
archive=fastfreeze-linux-x64.tar.xz

"${FF_NODE:-node}" scripts/package.mjs "$work/fastfreeze"
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
tar --format=gnu --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
  -C "$work" -cf "$work/plain.tar" fastfreeze
# One thread: their number changes the bytes. The filter for machine code saves 3 %.
xz --threads=1 --x86 --lzma2="preset=${level#-}" --stdout "$work/plain.tar" >"$work/$archive"
(cd "$work" && sha256sum "$archive" >"$archive.sha256")
unpacked=$(du -sm --apparent-size "$work/fastfreeze" | cut -f1)
mv "$work/$archive" "$work/$archive.sha256" "$out/"
printf '%s: %s MB, %s MB unpacked\n' "$out/$archive" "$(($(stat -c %s "$out/$archive") / 1000000))" "$unpacked"
cat "$out/$archive.sha256"
