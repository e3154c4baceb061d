#!/bin/sh
# Installs Debian's word lists, trains the model and writes model/dga.bin and model/metrics.json.
# The same word lists give the same bytes; `./train.sh --check` compares instead of writing.
set -eu
cd "$(dirname "$0")"

lists="wamerican wamerican-small wbritish wngerman wfrench wspanish witalian wdutch wportuguese wswedish"
missing=""
for list in $lists; do
    dpkg-query -W -f '${Status}' "$list" 2>/dev/null | grep -q 'install ok installed' ||
        missing="$missing $list"
done
if [ -n "$missing" ]; then
    as_root=""
    [ "$(id -u)" -eq 0 ] || as_root="sudo"
    # shellcheck disable=SC2086 # both are lists of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2
fi

cargo build --quiet --release --package dga-detector --bin dga-train
exec "$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/dga-train" "$@"
