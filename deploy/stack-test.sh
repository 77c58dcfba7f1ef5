#!/usr/bin/env bash
# Start docker-compose.yml with a real container engine where no registry can be reached, and press on it: everything but
# Grafana comes up and answers, loses no request while both replicas are replaced, and at most what was inside a replica that
# is killed. As root on Debian or Ubuntu, after deploy/image-test.sh with the same folder:
#
#   export IMAGE_TEST_DIR=/var/tmp/image; deploy/image-test.sh && deploy/stack-test.sh
#
# The engine is dockerd (apt install docker.io), started with folders and a network of its own, so that nothing is left of it.
# The image is the one that image-test.sh built; haproxy and prometheus are this machine's programs under the names of the
# images that the composition asks for.
set -euo pipefail
cd "$(dirname "$0")/.."
images="${IMAGE_TEST_DIR:?say where deploy/image-test.sh left its image}"
work="$(mktemp -d)"
services=(whisper-1 whisper-2 balancer prometheus)
clients=3

fail() {
    printf 'stack-test: %s\n' "$*" >&2
    exit 1
}
say() { printf 'stack-test: %s\n' "$*" >&2; }

PATH="$PWD/.venv/bin:$PATH"
[ "$(id -u)" = 0 ] || fail "must run as root: it starts a container engine"
for program in dockerd docker docker-compose buildah haproxy prometheus curl nsenter; do
    command -v "$program" >/dev/null || fail "$program is not installed (apt install docker.io buildah haproxy prometheus; make lint)"
done

export DOCKER_HOST="unix://$work/engine.sock"
compose() { docker-compose --project-name whisper-stack-test --file docker-compose.yml "$@" 2>>"$work/compose.log"; }
inside() { nsenter --target "$(cat "$work/engine.pid")" --net "$@"; }

clean() {
    touch "$work/stop"
    if [ -s "$work/engine.pid" ]; then
        compose down --volumes --timeout 15 || true
        kill "$(cat "$work/engine.pid")" || true
    fi
    wait
    rm -rf "$work"
}
trap clean EXIT

start_engine() {
    unshare --net --mount --fork --kill-child bash -c 'ip link set lo up; sysctl -qw net.ipv4.ip_forward=1; exec dockerd "$@"' \
        engine --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/engine.pid" \
        >"$work/engine.log" 2>&1 &
    for _ in $(seq 60); do
        if docker info >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    fail "the engine does not start: $(tail -n 3 "$work/engine.log")"
}

take_image() { # take_image NAME: from what image-test.sh left
    STORAGE_DRIVER=vfs buildah --root "$images/storage" --runroot "$images/run" push --quiet "localhost/$1" "docker-archive:$work/$1.tar:$1:latest"
    docker load --quiet --input "$work/$1.tar" >/dev/null
    rm "$work/$1.tar"
}

stand_in() { # stand_in IMAGE PROGRAM USER FOLDER ARGUMENT...: this machine's program on the Debian root, started as the image does it
    local image="$1" program user="$3" folder="$4" context="$work/$2" arguments
    program="$(readlink -f "$(command -v "$2")")"
    shift 4
    arguments="$(printf ', "%s"' "$@")"
    mkdir "$context"
    ldd "$program" | grep -o '/[^ ]*\.so[^ ]*' | tar --dereference --absolute-names --create --file "$context/files.tar" --files-from - "$program"
    printf '%s\n' "FROM debian-python" "ADD files.tar /" \
        "RUN ldconfig && { id $user >/dev/null 2>&1 || useradd --system $user; } && mkdir -p $folder && chown $user $folder" \
        "USER $user" "VOLUME $folder" "ENTRYPOINT [\"$program\"${arguments%, \"\"}]" >"$context/Dockerfile"
    DOCKER_BUILDKIT=0 docker build --quiet --tag "$image" "$context" >/dev/null 2>>"$work/compose.log" || fail "no stand-in for $image"
}

image_of() { sed -n "/^  $1:/,/^$/s/^    image: //p" docker-compose.yml; }

press() { # press FILE: one request after the other, the status of each into a file; 000 is no answer
    while [ ! -e "$work/stop" ]; do
        inside curl --silent --output /dev/null --write-out '%{http_code}\n' --form file=@"$1" \
            http://127.0.0.1:8000/v1/transcribe >>"$work/statuses" || true
    done
}

failed() { grep --count --invert-match '^200$' "$work/statuses" || true; }
served() { grep --count '^200$' "$work/statuses" || true; }

up() { compose up --detach --no-build --pull never --wait --wait-timeout 300 "$@" || fail "$* did not come up: $(tail -n 5 "$work/compose.log")"; }

check_hardening() {
    docker exec "$(compose ps --quiet whisper-1)" python -c '
import os
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
assert os.getuid() == 10001 and int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1", status
try:
    open("/app/writable", "w")
except OSError as error:
    assert error.errno == 30, error
else:
    raise AssertionError("the root can be written to")' || fail "whisper-1 is not locked down"
}

check_prometheus() {
    for _ in $(seq 60); do
        if [ "$(inside curl --silent http://127.0.0.1:9090/api/v1/targets | grep -o '"health":"up"' | wc -l)" = 3 ]; then return; fi
        sleep 1
    done
    fail "Prometheus does not scrape all three targets"
}

wait_restarted() { # wait_restarted CONTAINER
    for _ in $(seq 300); do
        if [ "$(docker inspect --format '{{.RestartCount}} {{.State.Health.Status}}' "$1")" = "1 healthy" ]; then return; fi
        sleep 1
    done
    fail "the killed replica did not come back"
}

say "an engine and its images"
start_engine
for name in whisper-service debian-python; do take_image "$name"; done
stand_in "$(image_of balancer)" haproxy haproxy /var/lib/haproxy -W -db -f /usr/local/etc/haproxy/haproxy.cfg
stand_in "$(image_of prometheus)" prometheus nobody /prometheus
say "the composition"
up "${services[@]}"
check_hardening
check_prometheus
for number in $(seq "$clients"); do press "tests/audio/$([ "$number" = 1 ] && echo en-jfk.flac || echo de-mekka.ogg)" & done
sleep 5
for replica in whisper-1 whisper-2; do up --no-deps --force-recreate "$replica"; done
sleep 5
[ "$(failed)" = 0 ] || fail "the rolling restart lost requests: $(sort "$work/statuses" | uniq -c)"
[ "$(served)" -gt "$clients" ] || fail "next to nothing was served"
say "both replicas replaced: $(served) requests served, none lost"
container="$(compose ps --quiet whisper-1)"
kill -9 "$(docker inspect --format '{{.State.Pid}}' "$container")"
wait_restarted "$container"
[ "$(failed)" -le "$clients" ] || fail "the kill cost more than was inside: $(sort "$work/statuses" | uniq -c)"
say "a replica killed and back: $(served) served, $(failed) lost with it"
say "passed"
