#!/bin/bash
# The base images that tests use where no registry can be pulled from: Debian with Python, made from Debian's
# packages and PyPI's. Prints the path of one archive, in the form of `docker save`, with
#   localhost/berth-test/python:1       python3 with venv, flask, gunicorn, onnxruntime, numpy
#   localhost/berth-test/tf-serving:1   that, and TensorFlow with the test model server as /usr/bin/tensorflow_model_server
#
#   base-image.sh                 makes it where it is not cached (2 min); prints the archive
#   base-image.sh docker [HOST]   loads it into Docker (HOST or DOCKER_HOST) where it is not there yet
# `docker load` and containerd's `ctr images import` both take it. Needs root and debootstrap (installed on Debian).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

TESTS=$(cd "$(dirname "$0")/.." && pwd)
PYTHON_IMAGE=localhost/berth-test/python:1
TFS_IMAGE=localhost/berth-test/tf-serving:1
# What the python image has beside Debian's python3.
WHEELS=(flask gunicorn onnxruntime "numpy<2.5")
KEY=$(cat "$0" "$TESTS/tfserving/requirements.txt" "$TESTS"/tfserving/tfserving/*.py | sha256sum | cut -c1-12)
BASE_KEY=$(cat "$0" | sha256sum | cut -c1-12)
IMAGES=$CACHE/images
ARCHIVE=$IMAGES/berth-test-$KEY.tar

# pip of the host for the image's Python: wheels only, from the cache's folder first.
pip_into() {
    local target=$1
    shift
    local pip=("$VENV/bin/pip" install -q --disable-pip-version-check --target "$target" --no-compile
        --python-version 3.11 --implementation cp --only-binary=:all: --no-warn-conflicts)
    { [ -d "$CACHE/wheels" ] && "${pip[@]}" --no-index --find-links "$CACHE/wheels" "$@" 2>/dev/null; } ||
        "${pip[@]}" "$@" >&2 || fail "pip could not install $*; its messages are above"
}

# Debian with python3, without what nothing here reads.
debian_tree() {
    local root=$1
    debootstrap --variant=minbase --include=python3,python3-venv bookworm "$root" >"$WORK/debootstrap.log" 2>&1 || {
        tail -20 "$WORK/debootstrap.log" >&2
        fail "debootstrap failed; the end of its log is above"
    }
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info} "$root"/var/log/*
    pip_into "$root/usr/local/lib/python3.11/dist-packages" "${WHEELS[@]}"
    slim "$root/usr/local/lib/python3.11/dist-packages"
    chroot "$root" python3 -m compileall -q /usr/local/lib/python3.11/dist-packages || true
}

# Tests, headers and type stubs of packages: a third of their size.
slim() {
    find "$1" -depth -type d \( -name tests -o -name testing -o -name include \) \
        -not -path '*/tensorflow/python/*' -not -path '*/numpy/*testing*' -exec rm -rf {} +
    find "$1" \( -name '*.pyi' -o -name '*.h' -o -name '*.a' \) -delete
}

# TensorFlow as far as serving needs it, and the model server, as one more layer.
tensorflow_tree() {
    local root=$1 packages=$1/usr/local/lib/python3.11/dist-packages
    mkdir -p "$packages" "$root/usr/bin" "$root/usr/lib/tfserving"
    grep -v -e '^#' -e '^tensorflow-serving-api' -e '^requests' "$TESTS/tfserving/requirements.txt" >"$WORK/requirements.txt"
    pip_into "$packages" -r "$WORK/requirements.txt"
    pip_into "$packages" --no-deps "$(grep '^tensorflow-serving-api' "$TESTS/tfserving/requirements.txt")"
    # Imported by the whole of TensorFlow only, which the model server does not import.
    rm -rf "$packages"/{clang,keras,h5py,h5py.libs,pip,setuptools,pygments,rich,tensorflow/lite,numpy,numpy.libs,numpy-*}
    slim "$packages"
    find "$packages/tensorflow" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null || true
    cp -r "$TESTS/tfserving/tfserving" "$root/usr/lib/tfserving/"
    rm -rf "$root/usr/lib/tfserving/tfserving/__pycache__"
    cat >"$root/usr/bin/tensorflow_model_server" <<'END'
#!/usr/bin/python3
import sys
sys.path.insert(0, "/usr/lib/tfserving")
from tfserving.main import main
main()
END
    chmod 755 "$root/usr/bin/tensorflow_model_server"
}

# One layer of the archive from a tree; prints its digest. The same tree gives the same layer.
layer() {
    tar -C "$1" --sort=name --mtime=@0 --numeric-owner -cf "$WORK/out/$2.tar" .
    sha256sum <"$WORK/out/$2.tar" | cut -d' ' -f1
}

# image_config NAME DIGEST...: what a container of the image runs by default.
image_config() {
    local name=$1 ids
    shift
    ids=$(printf '"sha256:%s",' "$@")
    echo '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","PYTHONDONTWRITEBYTECODE=1"],"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":['"${ids%,}"']}}' >"$WORK/out/$name.json"
}

make_archive() {
    [ "$(id -u)" = 0 ] || fail "making an image needs root"
    install_missing debootstrap=debootstrap strip=binutils
    VENV=$(dirname "$(dirname "$("$TESTS/tfserving/setup.sh" --python)")")
    mkdir -p "$IMAGES"
    WORK=$(mktemp -d "$IMAGES/new.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    mkdir "$WORK/out"
    say "making the base images (once)"
    if [ ! -e "$IMAGES/debian-$BASE_KEY.tar" ]; then
        debian_tree "$WORK/debian"
        layer "$WORK/debian" debian >/dev/null
        mv "$WORK/out/debian.tar" "$IMAGES/debian-$BASE_KEY.tar"
        rm -rf "$WORK/debian"
    fi
    ln "$IMAGES/debian-$BASE_KEY.tar" "$WORK/out/debian.tar"
    tensorflow_tree "$WORK/tf"
    local debian tf
    debian=$(sha256sum <"$WORK/out/debian.tar" | cut -d' ' -f1)
    tf=$(layer "$WORK/tf" tf)
    rm -rf "$WORK/tf"
    image_config python "$debian"
    image_config tf-serving "$debian" "$tf"
    cat >"$WORK/out/manifest.json" <<END
[{"Config":"python.json","RepoTags":["$PYTHON_IMAGE"],"Layers":["debian.tar"]},
 {"Config":"tf-serving.json","RepoTags":["$TFS_IMAGE"],"Layers":["debian.tar","tf.tar"]}]
END
    tar -C "$WORK/out" -cf "$WORK/archive.tar" manifest.json python.json tf-serving.json debian.tar tf.tar
    mv "$WORK/archive.tar" "$ARCHIVE"
    # Those of earlier states of the scripts are of no use any more.
    find "$IMAGES" -maxdepth 1 \( -name 'berth-test-*.tar' -o -name 'debian-*.tar' \) \
        ! -name "berth-test-$KEY.tar" ! -name "debian-$BASE_KEY.tar" -mmin +60 -delete
}

# The images' names, followed by what identifies this state of them.
loaded() {
    [ "$(docker -H "$1" image inspect -f '{{.Id}}' "$2" 2>/dev/null)" = "sha256:$(tar -xOf "$ARCHIVE" "$3.json" | sha256sum | cut -d' ' -f1)" ]
}

lock base-image
[ -e "$ARCHIVE" ] || make_archive
case ${1:-} in
"") echo "$ARCHIVE" ;;
docker)
    host=${2:-${DOCKER_HOST:-unix:///var/run/docker.sock}}
    if ! loaded "$host" "$PYTHON_IMAGE" python || ! loaded "$host" "$TFS_IMAGE" tf-serving; then
        docker -H "$host" load -q -i "$ARCHIVE" >&2 || fail "docker load failed; its message is above"
    fi
    printf '%s\n' "$PYTHON_IMAGE" "$TFS_IMAGE"
    ;;
*) fail "usage: base-image.sh [docker [HOST]]" ;;
esac
