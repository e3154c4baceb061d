#!/bin/bash
# A real Kubernetes 1.20 of one node, on loopback, with its own etcd and containerd.
#   kubernetes.sh build            builds it where it is not cached (5 to 15 min, once)
#   kubernetes.sh up               starts it where it does not run (20 s); prints the path of its kubeconfig
#   kubernetes.sh load IMAGE.tar   loads an archive as `docker save` writes it (imagePullPolicy Never or IfNotPresent)
#   kubernetes.sh down             removes every Pod and ends it
# Idempotent, safe to run several times at once; fixed ports (6443, 10250, 23790), so one for each machine. Set
# BERTH_TEST_KUBECONFIG to use a cluster of yours: then `up` prints that, and `down` and `load` leave it alone.
# Pods reach the host at 10.244.0.1. Needs root; installs what is missing (Debian).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

HERE=$(cd "$(dirname "$0")" && pwd)
K8S=$CACHE/k8s
BIN=$K8S/bin
DIR=$K8S/cluster
NODE=127.0.0.1
PAUSE=localhost/pause:1
URL=https://127.0.0.1:6443
PARTS=(kubelet kube-scheduler kube-controller-manager kube-apiserver containerd etcd)

api() { curl -s -m 10 --cacert "$DIR/pki/ca.crt" --cert "$DIR/pki/admin.crt" --key "$DIR/pki/admin.key" "$@"; }
images() { timeout "${TIMEOUT:-300}" ctr -a "$DIR/containerd/sock" -n k8s.io "$@"; }

build() {
    [ -x "$BIN/kubelet" ] && [ -x "$BIN/pause" ] && [ -x "$BIN/kube-apiserver" ] && return
    install_missing dpkg-source=dpkg-dev go=golang-go gcc=gcc
    say "building Kubernetes (once, up to 15 min)"
    "$HERE/kubernetes-build.sh" "$BIN" "$K8S/build" >&2
}

# leaf NAME SUBJECT EXTENSIONS: a certificate of the cluster's CA, in the current folder.
leaf() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -sha256 -days 3650 -out "$1.crt" \
        -extfile <(printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n%b' "$3") 2>/dev/null
}

certificates() {
    local server='extendedKeyUsage=serverAuth\n' client='extendedKeyUsage=clientAuth\n' user
    cd "$DIR/pki"
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj /CN=k8s-test-ca -out ca.crt -addext 'keyUsage=critical,keyCertSign,cRLSign'
    leaf apiserver /CN=kube-apiserver "${server}subjectAltName=IP:127.0.0.1,IP:::1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc\n"
    leaf kubelet-server /CN=kubelet "${server}subjectAltName=IP:127.0.0.1,DNS:localhost\n"
    leaf admin /O=system:masters/CN=admin "$client"
    leaf kcm /CN=system:kube-controller-manager "$client"
    leaf scheduler /CN=system:kube-scheduler "$client"
    leaf kubelet "/O=system:nodes/CN=system:node:$NODE" "$client"
    leaf apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client "$client"
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    openssl rand -hex 16 >../admin.token
    echo "$(cat ../admin.token),admin-token,admin-token,system:masters" >tokens.csv
    cd "$DIR"
    for user in admin kcm scheduler kubelet; do
        cat >"$user.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: k8s, cluster: {server: "$URL", certificate-authority-data: $(base64 -w0 <pki/ca.crt)}}]
users: [{name: $user, user: {client-certificate-data: $(base64 -w0 <"pki/$user.crt"), client-key-data: $(base64 -w0 <"pki/$user.key")}}]
contexts: [{name: k8s, context: {cluster: k8s, user: $user, namespace: default}}]
current-context: k8s
END
    done
}

# The pause image, an archive made by hand: what every Pod starts with.
pause_image() {
    local work layer
    work=$(mktemp -d "$DIR/img.XXXXXX")
    tar -C "$BIN" --owner=0 --group=0 --mtime=@0 -cf "$work/layer.tar" pause
    layer=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
    echo '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/pause"]},"rootfs":{"type":"layers","diff_ids":["sha256:'"$layer"'"]}}' >"$work/config.json"
    echo '[{"Config":"config.json","RepoTags":["'$PAUSE'"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
    tar -C "$work" -cf "$DIR/pause.tar" config.json layer.tar manifest.json
    rm -r "$work"
}

write_configs() {
    cat >containerd/config.toml <<END
version = 2
# Images are kept over \`down\`, since loading them is slow.
root = "$K8S/containerd"
state = "$DIR/containerd/state"
[grpc]
  address = "$DIR/containerd/sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$DIR/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE"
  # Needed where root may not set a negative oom_score_adj; harmless elsewhere.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${CNI_BIN:-/usr/lib/cni}"
    conf_dir = "$DIR/cni"
END
    cat >cni/10-bridge.conflist <<END
{"cniVersion": "0.4.0", "name": "k8stest", "plugins": [
  {"type": "bridge", "bridge": "k8stest0", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "$DIR/cni-ipam", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
    cat >kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: 10250
healthzPort: 10248
tlsCertFile: $DIR/pki/kubelet-server.crt
tlsPrivateKeyFile: $DIR/pki/kubelet-server.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $DIR/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failSwapOn: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
nodeStatusUpdateFrequency: 5s
volumePluginDir: $DIR/kubelet/volumeplugins
makeIPTablesUtilChains: false
END
}

api_ready() { [ "$(api "$URL/readyz")" = ok ]; }
account_ready() { api "$URL/api/v1/namespaces/default/serviceaccounts/default" | grep -q '"secrets"'; }
node_ready() { api "$URL/api/v1/nodes/$NODE" | tr -d ' \n' | grep -q '"type":"Ready","status":"True"'; }
runtime_ready() { TIMEOUT=5 images version >/dev/null 2>&1; }

start_all() {
    start_daemon "$DIR" etcd etcd --name k8s --data-dir "$DIR/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 \
        --listen-peer-urls http://127.0.0.1:23800 --initial-advertise-peer-urls http://127.0.0.1:23800 \
        --initial-cluster k8s=http://127.0.0.1:23800
    start_daemon "$DIR" containerd containerd --config containerd/config.toml
    certificates
    start_daemon "$DIR" kube-apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:23790 \
        --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port=6443 --insecure-port=0 \
        --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt \
        --token-auth-file=pki/tokens.csv --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=pki/sa.pub \
        --service-account-signing-key-file=pki/sa.key --service-cluster-ip-range=10.96.0.0/24 \
        --kubelet-client-certificate=pki/apiserver-kubelet-client.crt --kubelet-client-key=pki/apiserver-kubelet-client.key \
        --kubelet-certificate-authority=pki/ca.crt --endpoint-reconciler-type=none --allow-privileged=true \
        --feature-gates=TTLAfterFinished=true
    # Under load the API server takes up to 45 s.
    wait_for 120 "$DIR" kube-apiserver "a ready API server" api_ready
    start_daemon "$DIR" kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig=kcm.kubeconfig \
        --authentication-kubeconfig=kcm.kubeconfig --authorization-kubeconfig=kcm.kubeconfig \
        --bind-address=127.0.0.1 --port=0 --leader-elect=false --use-service-account-credentials=true \
        --service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt --allocate-node-cidrs=false \
        --controllers='*,-cloud-node-lifecycle,-service,-route' --feature-gates=TTLAfterFinished=true
    start_daemon "$DIR" kube-scheduler "$BIN/kube-scheduler" --kubeconfig=scheduler.kubeconfig \
        --authentication-kubeconfig=scheduler.kubeconfig --authorization-kubeconfig=scheduler.kubeconfig \
        --bind-address=127.0.0.1 --port=0 --leader-elect=false
    wait_for 60 "$DIR" containerd "an answering containerd" runtime_ready
    pause_image
    images images import pause.tar >/dev/null
    start_daemon "$DIR" kubelet "$BIN/kubelet" --config=kubelet.yaml --kubeconfig=kubelet.kubeconfig --root-dir="$DIR/kubelet" \
        --hostname-override=$NODE --cert-dir="$DIR/kubelet/pki" --seccomp-profile-root="$DIR/kubelet/seccomp" \
        --container-runtime=remote --container-runtime-endpoint="unix://$DIR/containerd/sock"
    wait_for 120 "$DIR" kube-controller-manager "token of the default ServiceAccount" account_ready
    wait_for 120 "$DIR" kubelet "a ready node" node_ready
}

# Another cluster on the same ports would be mistaken for this one.
ports_free() {
    local port
    for port in 6443 10250 23790; do
        ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "something listens on 127.0.0.1:$port already; is there another cluster?"
    done
}

is_up() {
    local part
    for part in "${PARTS[@]}"; do
        runs "$DIR" "$part" || return 1
    done
    api_ready
}

up() {
    [ "$(id -u)" = 0 ] || fail "a kubelet needs root; or set BERTH_TEST_KUBECONFIG to a cluster of yours"
    install_missing etcd=etcd-server containerd=containerd runc=runc ip=iproute2 openssl=openssl curl=curl
    [ -x "${CNI_BIN:-/usr/lib/cni}/bridge" ] || install_missing no-such-program=containernetworking-plugins
    build
    ! is_up || return 0
    down
    ports_free
    mkdir -p "$DIR"/{pki,etcd,kubelet,containerd,cni}
    chmod 700 "$DIR"
    cd "$DIR"
    write_configs
    start_all
}

# The kubelet itself takes its Pods down: containers, network, mounts.
remove_pods() {
    local namespace i
    for namespace in $(api "$URL/api/v1/namespaces" | sed -n 's/^        "name": "\(.*\)",$/\1/p'); do
        api -X DELETE "$URL/apis/batch/v1/namespaces/$namespace/jobs?propagationPolicy=Background" >/dev/null || true
        api -X DELETE "$URL/api/v1/namespaces/$namespace/pods?gracePeriodSeconds=1" >/dev/null || true
    done
    for ((i = 0; i < 100; i++)); do
        [ -n "$(TIMEOUT=5 images tasks ls -q 2>/dev/null)" ] || return 0
        sleep 0.1
    done
}

# What is left where the kubelet could not: tasks, containers, their network namespaces.
remove_containers() {
    local task container namespace
    for container in $(images containers ls -q); do
        for namespace in $(images containers info "$container" | grep -o '/run/netns/cni-[0-9a-f-]*' | sort -u); do
            [ ! -e "$namespace" ] || ip netns del "${namespace##*/}" || true
        done
    done
    for task in $(images tasks ls -q); do images tasks delete --force "$task" || true; done
    for container in $(images containers ls -q); do images containers delete "$container" || true; done
}

down() {
    local part group
    cd "$CACHE"
    if runs "$DIR" kubelet && runs "$DIR" kube-apiserver; then
        remove_pods
    fi
    for part in kubelet kube-scheduler kube-controller-manager kube-apiserver etcd; do stop_daemon "$DIR" $part; done
    if runs "$DIR" containerd; then
        remove_containers >/dev/null 2>&1 || true
        stop_daemon "$DIR" containerd
        ip link del k8stest0 2>/dev/null || true
    fi
    unmount_below "$DIR"
    for group in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
    rm -rf "$DIR"
}

# What identifies a loaded archive, so that loading it again costs nothing.
load() {
    local archive=${1:?usage: kubernetes.sh load IMAGE.tar} mark
    [ -f "$archive" ] || fail "there is no $archive"
    runs "$DIR" containerd || fail "not up: run kubernetes.sh up first"
    mark=$K8S/containerd/berth-loaded-$(stat -c '%n %s %Y' "$archive" | sha256sum | cut -c1-16)
    [ ! -e "$mark" ] || return 0
    images images import "$archive" >&2 || fail "containerd refused $archive; its message is above"
    touch "$mark"
}

if [ -n "${BERTH_TEST_KUBECONFIG:-}" ] && [ "${1:-}" != build ]; then
    [ "${1:-}" != up ] || echo "$BERTH_TEST_KUBECONFIG"
    exit 0
fi
lock kubernetes 3600
case ${1:-} in
build) build ;;
up)
    trap 'down' ERR INT TERM
    up
    trap - ERR INT TERM
    echo "$DIR/admin.kubeconfig"
    ;;
load) load "${2:-}" ;;
down) down ;;
*) fail "usage: kubernetes.sh build|up|load IMAGE.tar|down" ;;
esac
