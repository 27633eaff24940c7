#!/bin/sh
# The log of one core beside raft-engine on this machine: the same loads, in the same directory, by the same program.
#
# Each round goes through all workloads; each workload is run by Pontoon's log and then by raft-engine, on fresh
# directories that are removed again, so the other side is never running. Before the lone writer the bare device is
# measured. The end is a table of medians with minimum and maximum, and the ratio of the medians. The result stays as
# JSON in the directory named at the end.
#
#   bench/compare-raft-engine.sh [--rounds 5] [--seconds 5] [--warm-up 0.5] [--groups 64] [--workloads NAMES]
#                                [--append-path write|mmap] [--segment-mib 64] [--dir DIR] [--out DIR]
#
# Workloads are separated by commas; all of them unless named. Needs Rust and a C compiler. Nothing else should use the
# machine meanwhile. The directory needs some GiB of room.

set -eu

rounds=5 seconds=5 warm_up=0.5 groups=64 workloads= append_path= segment_mib= dir= out=
usage() { sed -n '2,13p' "$0" | cut -c3-; }
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage; exit 0 ;;
        --rounds | --seconds | --warm-up | --groups | --workloads | --append-path | --segment-mib | --dir | --out)
            [ $# -ge 2 ] || { echo "$1 needs a value (see --help)" >&2; exit 2; }
            name=$(echo "${1#--}" | tr - _)
            eval "$name=\$2"
            shift 2 ;;
        *) echo "unknown argument $1 (see --help)" >&2; exit 2 ;;
    esac
done

root=$(cd "$(dirname "$0")/.." && pwd)
case "$dir" in '' | /*) ;; *) dir=$PWD/$dir ;; esac
case "$out" in '' | /*) ;; *) out=$PWD/$out ;; esac
cd "$root"
cargo build --release -p pontoon-bench --features raft-engine
bin=${CARGO_TARGET_DIR:-$root/target}/release

out=${out:-$(mktemp -d "${TMPDIR:-/tmp}/pontoon-log.XXXXXX")}
mkdir -p "$out"
set -- wal --against raft-engine --rounds "$rounds" --seconds "$seconds" --warm-up "$warm_up" --groups "$groups"
[ -z "$workloads" ] || set -- "$@" --workloads "$workloads"
[ -z "$append_path" ] || set -- "$@" --append-path "$append_path"
[ -z "$segment_mib" ] || set -- "$@" --segment-mib "$segment_mib"
[ -z "$dir" ] || set -- "$@" --dir "$dir"

echo "$(date -u +%Y-%m-%d), $(nproc) processors, $(uname -sr), raft-engine 0.4.2"
"$bin/pontoon-bench" "$@" --save "$out/results.json"
echo "result: $out/results.json"
