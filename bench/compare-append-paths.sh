#!/bin/sh
# Measures both append paths of the log on ext4 and on XFS, each on a loop device of its own, in turns. Needs root.
# The device is a file, so the two file systems compare with each other and not with other figures.
set -eu

usage() {
    cat <<'TEXT'
usage: bench/compare-append-paths.sh [--rounds N] [--seconds N] [--out DIR]

  --rounds N    turns of each path (3)
  --seconds N   seconds that are measured in each turn (3)
  --out DIR     where the results go, one JSON file for each turn (a new directory)
TEXT
}

rounds=3 seconds=3 out=
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage; exit 0 ;;
        --rounds | --seconds | --out)
            [ $# -ge 2 ] || { echo "$1 needs a value (see --help)" >&2; exit 2; }
            eval "${1#--}=\$2"
            shift 2 ;;
        *) echo "unknown argument $1 (see --help)" >&2; exit 2 ;;
    esac
done
[ "$(id -u)" = 0 ] || { echo "mounting needs root" >&2; exit 3; }

root=$(cd "$(dirname "$0")/.." && pwd)
out=${out:-$(mktemp -d "${TMPDIR:-/tmp}/pontoon-append.XXXXXX")}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$root"
cargo build --release -p pontoon-bench
bin=${CARGO_TARGET_DIR:-$root/target}/release/pontoon-bench

place=$(mktemp -d "${TMPDIR:-/tmp}/pontoon-append.XXXXXX")
loop=
clean() {
    mountpoint -q "$place/mount" && umount "$place/mount"
    [ -z "$loop" ] || losetup -d "$loop"
    rm -rf "$place"
}
trap clean EXIT
trap 'exit 130' INT TERM
mkdir "$place/mount"

echo "$(date -u +%Y-%m-%d), $(nproc) processors, $(uname -sr)"
for file_system in ext4 xfs; do
    truncate -s 6G "$place/image"
    loop=$(losetup --find --show "$place/image")
    "mkfs.$file_system" -q "$loop"
    mount "$loop" "$place/mount"
    for round in $(seq "$rounds"); do
        for path in write mmap; do
            "$bin" wal --append-path "$path" --rounds 1 --seconds "$seconds" --warm-up 3 \
                --workloads lone-256,async-64,batch-256 --dir "$place/mount" \
                --save "$out/$file_system-$path-$round.json" >"$out/$file_system-$path-$round.txt"
            echo "$file_system $path, round $round"
            grep -E "entries/s |commit p50|commit p99|thread CPU|device B|flushes" "$out/$file_system-$path-$round.txt"
        done
    done
    umount "$place/mount"
    losetup -d "$loop"
    loop=
    rm "$place/image"
done
echo "results: $out"
