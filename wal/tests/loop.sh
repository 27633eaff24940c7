#!/usr/bin/env bash
# The tests of the log, and of nodes, on real file systems, each on a loop device of its own. Needs root.
#
#   wal/tests/loop.sh [--install] [NAME]
#
# --install  fetches what is missing with apt-get: mkfs for ext4 and xfs, nbdkit and nbdfuse.
# NAME       runs only the tests whose name contains it.
#
# Exits with 0 when some test ran and none failed; what this machine cannot do is listed as SKIPPED at the end. All
# images, mounts and devices are below one new directory in TMPDIR (/tmp) and are taken away at the end, also after a
# failure or Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/../.."

install=false
if [ "${1:-}" = --install ]; then
    install=true
    shift
fi

missing() {
    for tool in mkfs.ext4 mkfs.xfs fsfreeze nbdkit nbdfuse fusermount3; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
}
fetch() {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq e2fsprogs xfsprogs util-linux nbdkit libnbd-bin fuse3 >/dev/null
}
if $install && [ "$(id -u)" = 0 ] && [ -n "$(missing)" ]; then
    # Without them the tests say what is missing; that is no failure.
    fetch || echo "could not install: $(missing | tr '\n' ' ')" >&2
fi

# A file system whose module is not loaded is not in /proc/filesystems, by which the tests decide.
for module in ext4 xfs; do
    modprobe -q "$module" 2>/dev/null || true
done

place=$(mktemp -d "${TMPDIR:-/tmp}/pontoon-loop.XXXXXX")
# The tests take away what they made. This is for those that were killed: file systems, devices, then what is below.
clean_up() {
    local below='index($2, place) == 1' mounted
    for mounted in $(awk -v place="$place/" "$below"' && $3 !~ /^fuse/ { print $2 }' /proc/mounts); do
        umount "$mounted" || umount --lazy "$mounted" || true
    done
    losetup --list --noheadings --output NAME,BACK-FILE 2>/dev/null | awk -v place="$place/" "$below"' { print $1 }' |
        while read -r device; do losetup --detach "$device" || true; done
    for mounted in $(awk -v place="$place/" "$below"' { print $2 }' /proc/mounts); do
        umount --lazy "$mounted" || true
    done
    rm -rf --one-file-system "$place"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

status=0
PONTOON_TEST_DIR=$place cargo test --no-fail-fast --workspace --test it -- --ignored "device::${1:-}" --nocapture --test-threads=1 \
    2>&1 | tee "$place/output" || status=$?

if ! grep -q '^running [1-9]' "$place/output"; then
    echo "no test has '${1:-}' in its name" >&2
    status=2
fi
if grep -q 'SKIPPED' "$place/output"; then
    printf '\nNot tested on this machine:\n'
    grep -o 'SKIPPED.*' "$place/output" | sort | uniq -c
fi
exit "$status"
