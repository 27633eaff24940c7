#!/bin/sh
# Pontoon and etcd side by side on this machine: three processes each, on the same disk, with the same load generator.
#
# Each turn starts one system on fresh data directories, loads the keys, warms up, measures, and stops it again, so the
# other side is never running. Turns alternate: etcd, Pontoon, etcd, Pontoon, ... The end is a table of medians with
# minimum and maximum, and the ratio of the medians. Results stay in the directory named at the end.
#
#   bench/compare-etcd.sh [--rounds 5] [--clients "1 256"] [--value-size 256] [--read-percent 0] [--duration 10]
#                         [--groups 64] [--dir DIR] [--out DIR]
#
# Needs etcd (Debian: etcd-server) and Rust. Nothing else should use the machine meanwhile.

set -eu

rounds=5 clients="1 256" value_size=256 read_percent=0 duration=10 warm_up=2 groups=64 dir= out=
usage() { sed -n '2,12p' "$0" | cut -c3-; }
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage; exit 0 ;;
        --rounds | --clients | --value-size | --read-percent | --duration | --warm-up | --groups | --dir | --out)
            [ $# -ge 2 ] || { echo "$1 needs a value (see --help)" >&2; exit 2; }
            name=$(echo "${1#--}" | tr - _)
            eval "$name=\$2"
            shift 2 ;;
        *) echo "unknown argument $1 (see --help)" >&2; exit 2 ;;
    esac
done
case "$rounds$value_size$read_percent$groups" in
    *[!0-9]*) echo "rounds, value size, read percent and groups are numbers (see --help)" >&2; exit 2 ;;
esac
command -v etcd > /dev/null || { echo "etcd is not installed (Debian: apt-get install etcd-server)" >&2; exit 3; }

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
cargo build --release -p pontoon -p pontoon-tools
cargo build --release -p pontoon-bench --features etcd
bin=${CARGO_TARGET_DIR:-$root/target}/release

work=$(mktemp -d "${dir:-${TMPDIR:-/tmp}}/pontoon-compare.XXXXXX")
out=${out:-$work/results}
mkdir -p "$out"
case "$(stat -f -c %T "$work")" in
    tmpfs | ramfs) echo "$work is in memory: name a directory on a disk with --dir" >&2; rmdir "$out" "$work"; exit 3 ;;
esac

processes=
stop_all() {
    for process in $processes; do kill "$process" 2> /dev/null || true; done
    for process in $processes; do wait "$process" 2> /dev/null || true; done
    processes=
}
clean_up() {
    stop_all
    rm -rf "$work/etcd" "$work/pontoon"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits until somebody listens on a port of loopback, for at most ten seconds.
wait_for_port() {
    tries=0
    hex=$(printf '%04X' "$1")
    until grep -q "0100007F:$hex 00000000:0000 0A" /proc/net/tcp; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || { echo "nobody listens on port $1; see $2" >&2; exit 1; }
        sleep 0.05
    done
}

start_etcd() {
    mkdir -p "$work/etcd"
    cluster=e1=http://127.0.0.1:23801,e2=http://127.0.0.1:23802,e3=http://127.0.0.1:23803
    for n in 1 2 3; do
        etcd --name "e$n" --data-dir "$work/etcd/e$n" --log-level error \
            --listen-client-urls "http://127.0.0.1:2379$n" --advertise-client-urls "http://127.0.0.1:2379$n" \
            --listen-peer-urls "http://127.0.0.1:2380$n" --initial-advertise-peer-urls "http://127.0.0.1:2380$n" \
            --initial-cluster "$cluster" --initial-cluster-state new --quota-backend-bytes 8589934592 \
            2> "$out/etcd-$n.log" &
        processes="$processes $!"
    done
    for n in 1 2 3; do wait_for_port "2379$n" "$out/etcd-$n.log"; done
}

start_pontoon() {
    mkdir -p "$work/pontoon"
    "$bin/pontoon" init \
        --dir "$work/pontoon/n1" --dir "$work/pontoon/n2" --dir "$work/pontoon/n3" \
        --listen 127.0.0.1:24001 --listen 127.0.0.1:24002 --listen 127.0.0.1:24003 \
        --ranges "$groups" > "$out/pontoon-init.log"
    for n in 1 2 3; do
        # Cores of the three processes go round the processors, as they do for nodes in one process.
        "$bin/pontoond" --data-dir "$work/pontoon/n$n" --first-cpu $((n - 1)) \
            > "$out/pontoond-$n.log" 2>&1 &
        processes="$processes $!"
    done
    for n in 1 2 3; do wait_for_port "2400$n" "$out/pontoond-$n.log"; done
}

# measure SYSTEM CLIENTS: one turn.
measure() {
    case "$1" in
        etcd) start_etcd; to="--against etcd=127.0.0.1:23791,127.0.0.1:23792,127.0.0.1:23793" ;;
        pontoon) start_pontoon; to="--endpoints 127.0.0.1:24001,127.0.0.1:24002,127.0.0.1:24003" ;;
    esac
    # shellcheck disable=SC2086
    "$bin/pontoon-bench" $to --clients "$2" --connections 3 --value-size "$value_size" \
        --read-percent "$read_percent" --preload --warm-up "$warm_up" --duration "$duration" --disk "$work" \
        --output json >> "$out/results.jsonl" 2> "$out/last-run.log" ||
        { code=$?; cat "$out/last-run.log" >&2; exit "$code"; }
    stop_all
    rm -rf "$work/etcd" "$work/pontoon"
}

for count in $clients; do
    round=1
    while [ "$round" -le "$rounds" ]; do
        for system in etcd pontoon; do
            echo "$count clients, round $round of $rounds: $system" >&2
            measure "$system" "$count"
        done
        round=$((round + 1))
    done
done

echo "$(date -u +%Y-%m-%d), $(nproc) processors, $(uname -sr), $(etcd --version | head -n 1)"
"$bin/pontoon-bench" summarize --baseline etcd "$out/results.jsonl"
echo "results: $out"
