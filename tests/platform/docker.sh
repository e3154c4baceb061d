#!/bin/bash
# A Docker daemon of the tests' own, beside any other.
#   docker.sh up      starts it where it does not run; prints its DOCKER_HOST
#   docker.sh down    removes its containers and stops it; images stay cached (down --purge removes them too)
#   docker.sh status  prints its DOCKER_HOST, or fails
# Idempotent, safe to run several times at once. Set BERTH_TEST_DOCKER=unix:///path to use a daemon of yours: then
# `up` prints that and `down` leaves it alone. Needs root; installs docker.io where it is missing (Debian).
#
# The daemon makes no bridge and touches no firewall rule, so that it works in containers without either and next to
# another daemon: containers get the host's network (`--network host`) or none.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

DIR=${BERTH_TEST_DOCKER_DIR:-$CACHE/docker}
# Outside the folder, since the path of a unix socket may have 107 bytes only.
RUN=/run/berth-test-docker-$(printf %s "$DIR" | sha256sum | cut -c1-8)
HOST=unix://$RUN/docker.sock

answers() { docker -H "$HOST" version >/dev/null 2>&1; }

up() {
    [ "$(id -u)" = 0 ] || fail "a Docker daemon needs root; or set BERTH_TEST_DOCKER=unix:///path/of/a/socket"
    install_missing dockerd=docker.io docker=docker.io
    if runs "$DIR" dockerd && answers; then
        return
    fi
    stop_daemon "$DIR" dockerd
    mkdir -p "$DIR" "$RUN"
    # What a killed daemon leaves: its containerd, which would hold the new one's database.
    end_containerd
    rm -f "$RUN/docker.sock" "$RUN/docker.pid"
    start_daemon "$DIR" dockerd dockerd --host "$HOST" --data-root "$DIR/data" --exec-root "$RUN/exec" \
        --pidfile "$RUN/docker.pid" --bridge=none --iptables=false --ip6tables=false
    wait_for 60 "$DIR" dockerd "an answer" answers
}

end_containerd() {
    local pid
    read -r pid 2>/dev/null <"$RUN/exec/containerd/containerd.pid" || return 0
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = containerd ] && grep -q "$RUN" "/proc/$pid/cmdline" || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 50); do
        [ -n "$(started "$pid")" ] || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

down() {
    if runs "$DIR" dockerd && answers; then
        docker -H "$HOST" ps -aq | xargs -r docker -H "$HOST" rm -f >/dev/null 2>&1 || true
    fi
    stop_daemon "$DIR" dockerd 30
    end_containerd
    unmount_below "$RUN"
    unmount_below "$DIR"
    rm -rf "$RUN"
    [ "${1:-}" != --purge ] || rm -rf "$DIR"
}

if [ -n "${BERTH_TEST_DOCKER:-}" ]; then
    [ "${1:-}" = down ] || echo "$BERTH_TEST_DOCKER"
    exit 0
fi
lock docker
case ${1:-} in
up)
    trap 'down' ERR INT TERM
    up
    trap - ERR INT TERM
    echo "$HOST"
    ;;
down) down "${2:-}" ;;
status)
    runs "$DIR" dockerd && answers || fail "not up"
    echo "$HOST"
    ;;
*) fail "usage: docker.sh up|down [--purge]|status" ;;
esac
