#!/bin/bash
# An image registry on loopback, on a free port.
#   registry.sh up [FOLDER]     starts it where it does not run; prints HOST:PORT
#   registry.sh down [FOLDER]   stops it and removes what was pushed to it
# Each FOLDER (default: one in the cache) is a registry of its own. Idempotent, safe to run several times at once.
# Installs docker-registry where it is missing (Debian, root). Docker takes a loopback registry without TLS.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

DIR=${2:-$CACHE/registry}

address() { sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$DIR/registry.log" 2>/dev/null | tail -1; }
listens() { [ -n "$(address)" ]; }

up() {
    install_missing docker-registry=docker-registry
    ! { runs "$DIR" registry && listens; } || return 0
    mkdir -p "$DIR/data"
    cat >"$DIR/config.yml" <<END
version: 0.1
log: { level: info }
storage:
  filesystem: { rootdirectory: $DIR/data }
  delete: { enabled: true }
http: { addr: "127.0.0.1:0" }
END
    start_daemon "$DIR" registry docker-registry serve "$DIR/config.yml"
    wait_for 20 "$DIR" registry "a port" listens
}

down() {
    stop_daemon "$DIR" registry
    rm -rf "$DIR"
}

lock "registry-$(printf %s "$DIR" | sha256sum | cut -c1-8)"
case ${1:-} in
up)
    trap 'down' ERR INT TERM
    up
    trap - ERR INT TERM
    address
    ;;
down) down ;;
*) fail "usage: registry.sh up|down [FOLDER]" ;;
esac
