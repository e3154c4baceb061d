#!/bin/sh
# Sets up the test model server: prints the path of a `tensorflow_model_server` that can be run from anywhere.
#   tests/tfserving/setup.sh            the server, with what it needs in a virtual environment of the cache
#   tests/tfserving/setup.sh --python   the interpreter of that environment, for the official clients
# Idempotent and safe to run several times at once. BERTH_CACHE says where the cache is (~/.cache/berth);
# wheels already in BERTH_CACHE/wheels are used, and the package index for what is not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${BERTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth}
python=${PYTHON:-python3}

fail() {
    echo "tests/tfserving/setup.sh: $1" >&2
    exit 1
}

# From the wheels of the cache alone if they are enough, which takes a fifth of the time; else from the index.
install() {
    pip="$venv/bin/pip install -q --disable-pip-version-check"
    [ ! -d "$cache/wheels" ] || ! $pip --no-index --find-links "$cache/wheels" "$@" 2>/dev/null || return 0
    $pip "$@" >&2 || fail "pip could not install $*; its messages are above"
}

command -v "$python" >/dev/null || fail "no $python on PATH; install Python 3.10 or newer (apt-get install python3 python3-venv)"
wanted=$({ cat "$here/requirements.txt"; "$python" -c 'import sys; print(sys.version, sys.prefix)'; } | sha256sum | cut -c1-12)
sources=$(cat "$here"/tfserving/*.py | sha256sum | cut -c1-12)
venv=$cache/venv-tfserving-$wanted
server=$cache/tfserving-$wanted-$sources

mkdir -p "$cache"
exec 9>"$cache/tfserving.lock"
flock 9

if [ ! -e "$venv/ready" ]; then
    echo "making $venv (once)" >&2
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "cannot make a virtual environment (apt-get install python3-venv)"
    api=$(grep '^tensorflow-serving-api' "$here/requirements.txt")
    grep -v -e '^#' -e '^tensorflow-serving-api' "$here/requirements.txt" >"$venv/requirements.txt"
    install -r "$venv/requirements.txt"
    install --no-deps "$api"
    touch "$venv/ready"
fi

if [ ! -x "$server/bin/tensorflow_model_server" ]; then
    new=$(mktemp -d "$cache/tfserving.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    mkdir -p "$new/bin" "$new/lib"
    cp -r "$here/tfserving" "$new/lib/"
    rm -rf "$new/lib/tfserving/__pycache__"
    "$venv/bin/python" -m compileall -q "$new/lib/tfserving"
    cat >"$new/bin/tensorflow_model_server" <<END
#!$venv/bin/python -I
import sys
sys.path.insert(0, "$server/lib")
from tfserving.main import main
main()
END
    chmod 755 "$new" "$new/bin/tensorflow_model_server"
    rm -rf "$server"
    mv "$new" "$server"
    trap - EXIT
fi

case ${1:-} in
--python) echo "$venv/bin/python" ;;
"") echo "$server/bin/tensorflow_model_server" ;;
*) fail "unknown argument $1" ;;
esac
