#!/usr/bin/env bash
# Run an image's command as docker-compose.yml has it run, without a container engine: as its user, on its root file system
# mounted read-only, with 64 MB of /tmp, no capabilities, no new privileges and no network but loopback. Limits on memory and
# processes are the engine's. Called again in the same namespaces, it runs another command there.
#
#   unshare --net --pid --mount --fork --kill-child deploy/locked-down.sh ROOT NAME=VALUE... COMMAND...
set -euo pipefail
root="$1"
shift
if ! mountpoint --quiet "$root/proc"; then
    ip link set lo up
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t tmpfs -o size=64m,mode=1777,noexec,nosuid,nodev tmpfs "$root/tmp"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
fi
if touch "$root/app/writable" 2>/dev/null; then
    echo "locked-down: the root can be written to" >&2
    exit 1
fi
exec chroot "$root" setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
    env -i --chdir=/app "$@"
