#!/usr/bin/env bash
# Build the image and transcribe through it, without a container engine: as root on Debian or Ubuntu, with debootstrap and
# buildah (apt install debootstrap buildah). Usage: deploy/image-test.sh
#
# A Debian root made here stands in for the python:3.11-slim that the Dockerfile names; everything else is the Dockerfile
# as it is. The image's command then runs as docker-compose.yml has it run: its user, a read-only root, no capabilities, no
# network but loopback (deploy/locked-down.sh).
# IMAGE_TEST_DIR keeps the Debian root and the image for the next time, else all is removed.
set -euo pipefail
cd "$(dirname "$0")/.."
work="${IMAGE_TEST_DIR:-$(mktemp -d)}"
clip=tests/audio/en-jfk.flac
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"

fail() {
    printf 'image-test: %s\n' "$*" >&2
    exit 1
}
say() { printf 'image-test: %s\n' "$*" >&2; }

[ "$(id -u)" = 0 ] || fail "must run as root: it makes a Debian root and enters it"
for program in debootstrap buildah curl unshare; do
    command -v "$program" >/dev/null || fail "$program is not installed (Debian, Ubuntu: apt install debootstrap buildah curl)"
done

export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }

clean() {
    buildah rm --all >/dev/null 2>&1 || true
    if [ -z "${IMAGE_TEST_DIR:-}" ]; then rm -rf "$work"; fi
}
trap clean EXIT
mkdir -p "$work"

make_base() {
    local mirror
    mirror="$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
        sed -n 's/^URIs: *//p; s/^deb \([^[ ][^ ]*\) .*/\1/p' | head -n 1 || true)"
    say "a Debian root"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,gcc,libc6-dev bookworm "$work/root" ${mirror:+"$mirror"} >"$work/log" 2>&1 ||
        fail "debootstrap failed: $(tail -n 3 "$work/log")"
    rm -rf "$work/root/var/cache/apt" "$work/root/var/lib/apt/lists"
    commit_root localhost/debian-build
    # The same without a compiler, as python:slim is.
    DEBIAN_FRONTEND=noninteractive chroot "$work/root" apt-get purge --yes gcc gcc-12 cpp cpp-12 binutils libc6-dev \
        >"$work/log" 2>&1 || fail "the compiler could not be removed: $(tail -n 3 "$work/log")"
    commit_root localhost/debian-python
    rm -rf "$work/root"
}

commit_root() {
    local container
    container="$(buildah from scratch)"
    buildah add --quiet "$container" "$work/root" / >/dev/null
    buildah commit --quiet "$container" "$1" >/dev/null
    buildah rm "$container" >/dev/null
}

# How pip is set up on this machine (certificates, folders of wheels) holds inside the build too, and stays out of the image.
pip_volumes() {
    local path
    python3 -m pip config list 2>/dev/null | sed -n "s/^\(global\|user\|site\|:env:\)\.\(.*\)='\(.*\)'\$/\2=\3/p" |
        grep -E '^(find-links|extra-index-url|index-url|cert|trusted-host)=' | sort -u |
        { echo "[global]"; sed 's/=/ = /'; } >"$work/pip.conf"
    echo "--volume=$work/pip.conf:/etc/pip.conf:ro"
    echo "--volume=/etc/ssl/certs:/etc/ssl/certs:ro"
    for path in $(grep -E '^(find-links|extra-index-url|index-url)' "$work/pip.conf" | grep -oE '(file://|[= ])/[^ ]+' | sed 's|^file://||; s|^[= ]*||' | sort -u); do
        if [ -d "$path" ]; then echo "--volume=$path:$path:ro"; fi
        # An index in a folder points at files beside it.
        if [ "$(basename "$path")" = simple ]; then echo "--volume=$(dirname "$path"):$(dirname "$path"):ro"; fi
    done | sort -u
}

build() {
    local volumes
    mapfile -t volumes < <(pip_volumes)
    say "the image"
    buildah bud --quiet --format docker --target cpu --build-arg PYTHON_IMAGE=localhost/debian-python \
        --build-arg BUILD_IMAGE=localhost/debian-build "${volumes[@]}" \
        --tag localhost/whisper-service . >"$work/log" 2>&1 || fail "the build failed: $(tail -n 20 "$work/log")"
}

inspect() {
    local container="$1" root
    root="$(buildah mount "$container")"
    for program in gcc cc c++ make pip; do
        ! compgen -G "$root/usr/bin/$program" >/dev/null || fail "the image holds $program"
        ! compgen -G "$root/app/.venv/bin/$program" >/dev/null || fail "the image holds $program in .venv"
    done
    [ ! -s "$root/etc/pip.conf" ] || fail "the image holds this machine's pip configuration"
    du -sm "$root" | awk '{print "image-test: the image takes " $1 " MB, of which .venv"}' >&2
    du -sm "$root/app/.venv" | awk '{print "image-test: " $1 " MB"}' >&2
    buildah umount "$container" >/dev/null
    [ -n "$(buildah inspect --format '{{.Docker.Config.Healthcheck}}' "$container")" ] || fail "the image has no health check"
    [ "$(buildah inspect --format '{{.OCIv1.Config.User}}' "$container")" = 10001:10001 ] || fail "the image runs as root"
}

# What the image says of itself: one line for each entry.
configured() { buildah inspect --format "{{range .$1}}{{println .}}{{end}}" "$2" | sed '/^$/d'; }

serve_and_ask() {
    local container="$1" root check asking variables command
    root="$(buildah mount "$container")"
    mapfile -t variables < <(configured OCIv1.Config.Env "$container")
    mapfile -t command < <(configured OCIv1.Config.Cmd "$container")
    mapfile -t check < <(configured Docker.Config.Healthcheck.Test "$container" | sed 1d)
    # As one word: no array can be exported.
    asking="$(printf '%q ' deploy/locked-down.sh "$root" "${variables[@]}" WHISPER_PORT="$port" "${check[@]}")"
    # Everything below happens in namespaces of its own; the service and its mounts are gone when this returns.
    export work root port clip asking
    unshare --net --pid --mount --fork --kill-child bash -euo pipefail -c '
        deploy/locked-down.sh "$root" "$@" 2>"$work/service.log" &
        service=$!
        for _ in $(seq 300); do
            if curl --silent --fail "http://127.0.0.1:$port/readyz" >/dev/null || ! kill -0 $service 2>/dev/null; then break; fi
            sleep 0.5
        done
        curl --silent --fail-with-body --form file=@"$clip" "http://127.0.0.1:$port/v1/transcribe" >"$work/answer.json"
        eval "$asking"
        curl --silent "http://127.0.0.1:$port/metrics" | grep "^whisper_ready 1"
        kill -TERM $service
        wait $service' serve "${variables[@]}" WHISPER_PORT="$port" WHISPER_DRAIN_NOTICE_SECONDS=0 "${command[@]}" >/dev/null ||
        fail "the service did not answer: $(tail -n 5 "$work/service.log"; cat "$work/answer.json" 2>/dev/null)"
    buildah umount "$container" >/dev/null
    python3 - "$work/answer.json" <<'PYTHON'
import json, sys

answer = json.load(open(sys.argv[1]))
assert "ask not what your country can do for you" in answer["text"].lower(), answer
print("image-test: it wrote", json.dumps(answer["text"]))
PYTHON
}

buildah inspect --type image localhost/debian-python >/dev/null 2>&1 || make_base
build
container="$(buildah from localhost/whisper-service)"
inspect "$container"
serve_and_ask "$container"
say "passed"
