#!/bin/sh
# Where the processor time of a write goes: runs the main job's write load under perf and adds the samples up by stage.
#
#   bench/profile.sh [--clients "1 256"] [--duration 10]
#
# Needs perf (Debian: linux-perf) and Rust. A stage is told by the name of the sampled function, so a kernel function
# that serves both disk and network stands under "kernel, other". Percentages are of all samples of the process: three
# nodes, their three logs, and the client.

set -eu

clients="1 256" duration=10
while [ $# -gt 0 ]; do
    case "$1" in
        --clients) clients=$2; shift 2 ;;
        --duration) duration=$2; shift 2 ;;
        *) sed -n '2,9p' "$0" | cut -c3-; exit 2 ;;
    esac
done
command -v perf > /dev/null || { echo "perf is not installed (Debian: apt-get install linux-perf)" >&2; exit 3; }

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
cargo build --release -p pontoon-bench
bin=${CARGO_TARGET_DIR:-$root/target}/release
work=$(mktemp -d "${TMPDIR:-/tmp}/pontoon-profile.XXXXXX")
trap 'rm -rf "$work"' EXIT

for count in $clients; do
    perf record -q -F 997 -o "$work/perf.data" \
        "$bin/pontoon-bench" --clients "$count" --read-percent 0 --warm-up 2 --duration "$duration" --output json \
        > "$work/result.json" 2> /dev/null
    echo "$count clients: $(grep -o '"writes_per_s":[0-9.]*' "$work/result.json")" \
        "$(grep -o '"write_p50_us":[0-9.]*' "$work/result.json")"
    perf report -i "$work/perf.data" --no-children --sort symbol --stdio 2> /dev/null | awk '
        function stage(name, kernel) {
            if (name ~ /pontoon_bench|pontoon_client/) return "client"
            if (name ~ /pontoon_wire|pontoon_router/) return "codec and routes"
            if (name ~ /pontoon_raft/) return "Raft step"
            if (name ~ /multiraft::kv|memcmp/) return "apply"
            if (name ~ /pontoon_multiraft/) return "multi-Raft turn"
            if (name ~ /pontoon_wal/) return "log, user side"
            if (name ~ /crc32/) return "checksums"
            if (name ~ /malloc|cfree|_int_free|realloc|calloc|drop_in_place|shared_v|bytes::/) return "allocation"
            if (name ~ /memmove|memcpy|memset/) return "copies"
            if (name ~ /pontoon::/) return "core loop and driver"
            if (!kernel) return "user, other"
            if (name ~ /tcp|sock|skb|inet|ip_|nf_|loopback|dev_|net_|eth|neigh|csum|send|recv/) return "kernel, network"
            if (name ~ /ext4|jbd2|blk|bio|folio|iomap|writeback|fsync|fdatasync|virtio|virtqueue|iowrite|io_|xas_|filemap|mark_buffer|pagecache|page_cache|vfs_|rw_|write/) return "kernel, log and disk"
            if (name ~ /sched|switch|wake|futex|epoll|ep_|enqueue|dequeue|idle|hrtimer|timer|irq|ipi|spin_unlock|pick_|update_|reweight|ttwu|select_task/) return "kernel, waking and waiting"
            if (name ~ /rep_movs|rep_stos|copy_to|copy_from|_copy/) return "kernel, copies"
            if (name ~ /clear_page|page_fault|fault|mm_|vma|alloc|lru|charge|pte|anon|free_/) return "kernel, memory"
            if (name ~ /syscall|entry_|exit_to/) return "kernel, entering and leaving"
            return "kernel, other"
        }
        /^ *[0-9.]+%/ {
            percent = $1; sub("%", "", percent)
            kernel = ($2 == "[k]")
            name = $0; sub(/^ *[0-9.]+% +\[[k.]\] +/, "", name)
            sum[stage(name, kernel)] += percent
        }
        END { for (one in sum) printf "%6.1f %%  %s\n", sum[one], one }' | sort -rn
done
