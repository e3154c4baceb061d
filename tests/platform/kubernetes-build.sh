#!/bin/bash
# Builds kube-apiserver, kube-controller-manager, kube-scheduler, kubelet (v1.20.2) and pause from Debian 12's source
# package into the cache: no registry of images or of release archives is needed. 5 to 15 minutes, once.
# Called by `kubernetes.sh build`, which holds the lock and has installed what this needs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

BIN=$1 SRC=$2
VERSION=1.20.5+really1.20.2-1.1+deb12u1
K=$SRC/gopath/src/k8s.io/kubernetes

fetch_sources() {
    if ! apt-cache showsrc kubernetes 2>/dev/null | grep -q '^Package: kubernetes$'; then
        sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >/etc/apt/sources.list.d/berth-src.sources ||
            fail "no deb-src line and no /etc/apt/sources.list.d/debian.sources to make one from: add deb-src for bookworm"
        apt-get update -qq
    fi
    apt-get source -qq --download-only "kubernetes=$VERSION" || fail "Debian's source package kubernetes $VERSION cannot be had"
    # reflect2 1.0.1, which is vendored, corrupts memory on Go 1.18 and newer.
    apt-get download -qq golang-github-modern-go-reflect2-dev
    rm -rf "$K" r2
    dpkg-source --no-check -x "kubernetes_$VERSION.dsc" "$K" >/dev/null
    dpkg -x golang-github-modern-go-reflect2-dev_*_all.deb r2
    rm -rf "$K/vendor/github.com/modern-go/reflect2"
    cp -r r2/usr/share/gocode/src/github.com/modern-go/reflect2 "$K/vendor/github.com/modern-go/reflect2"
}

# The one generated file that the source package lacks.
generate() {
    local dirs
    go build -o "$SRC/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    dirs=$({
        grep -rl --include=*.go '^// *+k8s:openapi-gen=' pkg
        for module in staging/src/k8s.io/*; do
            module=${module##*/}
            case $module in
            code-generator | sample-apiserver) ;;
            *) grep -rl --include=*.go '^// *+k8s:openapi-gen=' "vendor/k8s.io/$module" || : ;;
            esac
        done
    } | xargs -n1 dirname | LC_ALL=C sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd,)
    "$SRC/openapi-gen" --logtostderr -i "$dirs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
        -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$SRC/violations.report"
}

compile() {
    local flags="-s -w" package
    for package in component-base/version client-go/pkg/version; do
        package=k8s.io/kubernetes/vendor/k8s.io/$package
        flags="$flags -X $package.gitVersion=v1.20.2 -X $package.gitMajor=1 -X $package.gitMinor=20"
        flags="$flags -X $package.gitTreeState=clean -X $package.gitCommit=debian -X $package.buildDate=1970-01-01T00:00:00Z"
    done
    go build -tags 'providerless dockerless' -trimpath -ldflags "$flags" -o "$BIN.new/" \
        ./cmd/kube-apiserver ./cmd/kube-controller-manager ./cmd/kube-scheduler ./cmd/kubelet
    gcc -Os -static -s -o "$BIN.new/pause" build/pause/linux/pause.c
}

mkdir -p "$SRC/gopath/src/k8s.io" "$BIN.new"
cd "$SRC"
fetch_sources
export GOPATH=$SRC/gopath GO111MODULE=off CGO_ENABLED=0 GOFLAGS= GOCACHE=$SRC/gocache
cd "$K"
generate
compile
rm -rf "$BIN"
mv "$BIN.new" "$BIN"
# The sources and Go's cache take 3 GB and are not read again.
rm -rf "$SRC"
