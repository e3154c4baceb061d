#!/bin/sh
# Puts the wheels of requirements.txt into wheels/, so that nodes need no package index. Extra arguments go to pip, as in
#   ./fetch-wheels.sh --no-index --find-links /srv/wheels
set -eu
cd "$(dirname "$0")"
exec python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: --dest wheels --requirement requirements.txt "$@"
