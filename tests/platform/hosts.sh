#!/bin/bash
# Real hosts for tests, on one machine: user-mode Linux, each with its own systemd, cgroup v2, address, disk and power.
#   hosts.sh build            makes what they boot from, where it is not cached
#   hosts.sh up N             boots hosts 1..N and waits until they have booted
#   hosts.sh exec I COMMAND…  runs a command on host I (one argument: a bash script); its output and exit status
#   hosts.sh put I FILE PATH  copies a file there, with its mode
#   hosts.sh share            the folder that every host sees as /mnt/test
#   hosts.sh cut I            power cut;   hosts.sh off I: an orderly shutdown;   hosts.sh boot I: on again, from the same disk
#   hosts.sh link I up|down   its network cable
#   hosts.sh host COMMAND…    runs a command on the test's side of their network
#   hosts.sh pid I            the process that is host I
#   hosts.sh netns            the name of their network namespace
#   hosts.sh down             ends this run's hosts;   hosts.sh sweep: ends those whose owner is gone
# Host I is 10.99.0.I; the test's side is 10.99.0.254, and 10.99.0.253 for what a host shall lose apart from the rest.
# BERTH_HOSTS_RUN names the folder of a run: other folders are other, independent runs. BERTH_HOSTS_OWNER is the pid that
# a run ends with: when it is gone, the next `up` or `sweep` cleans up. Needs root; installs what it lacks (Debian).
set -euo pipefail
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/lib.sh"
. "$HERE/hosts/tree.sh"

RUNS=${TMPDIR:-/tmp}/berth-test-hosts
RUN=${BERTH_HOSTS_RUN:-$RUNS/default}
NS=berth-$(printf %s "$RUN" | sha256sum | cut -c1-8)
MADE=$CACHE/hosts/$(recipe)
MEMORY=${BERTH_HOSTS_MEMORY:-512M}
WAIT=${BERTH_HOSTS_WAIT:-180}
# For one command on a host, which may lose its power meanwhile.
PATIENCE=${BERTH_HOSTS_PATIENCE:-300}

in_net() { nsenter "--net=/run/netns/$NS" "$@"; }

build() {
    [ "$(id -u)" = 0 ] || fail "hosts need root, for their network"
    [ -e "$MADE/disk.img" ] && [ -e "$MADE/linux" ] && return
    install_missing debootstrap=debootstrap busybox=busybox-static mkfs.ext4=e2fsprogs ip=iproute2 nsenter=util-linux
    say "making the disk of test hosts, once"
    mkdir -p "$CACHE/hosts"
    # Another checkout may use another one; those that nobody has used for a day go.
    find "$CACHE/hosts" -mindepth 1 -maxdepth 1 -mmin +1440 -exec rm -rf {} +
    rm -rf "$MADE.new"
    make_image "$MADE.new"
    mv "$MADE.new" "$MADE"
}

network_up() {
    [ -e "/run/netns/$NS" ] && return
    ip netns add "$NS"
    in_net sh -c 'ip link set lo up; ip link add br0 type bridge; ip addr add 10.99.0.254/24 dev br0
        ip addr add 10.99.0.253/24 dev br0; ip link set br0 up
        echo 2 >/proc/sys/net/ipv4/tcp_syn_retries' # 7 s until a host without power counts as such, not two minutes
}

boot() { # I
    ! runs "$RUN" "$1" || fail "host $1 runs already"
    [ -e "$RUN/$1.img" ] || cp --sparse=always --reflink=auto "$MADE/disk.img" "$RUN/$1.img"
    in_net sh -c "ip link del tap$1 2>/dev/null; ip tuntap add tap$1 mode tap && ip link set tap$1 master br0 up"
    # In a pid namespace, so that the host's processes, which its kernel traces, die with it. Its memory is a file in TMPDIR.
    TMPDIR=/dev/shm start_daemon "$RUN" "$1" nsenter "--net=/run/netns/$NS" unshare --pid --fork --kill-child --mount-proc \
        "$MADE/linux" "ubd0=$RUN/$1.img" root=/dev/ubda rw "mem=$MEMORY" quiet systemd.show_status=0 "berth.host=$1" \
        "hostfs=$RUN/share" "eth0=tuntap,tap$1,52:54:00:99:00:$(printf %02x "$1")" con0=null,fd:1 con=null ssl=null
}

answers() { [ "$(run_on "$1" 'systemctl is-system-running --wait || :' 2>/dev/null)" != "" ]; }

booted() { # I
    wait_for "$WAIT" "$RUN" "$1" "host $1 had booted" answers "$1"
}

cut_power() { # I
    local pid
    if runs "$RUN" "$1"; then
        pid=$(cut -d' ' -f1 "$RUN/$1.pid")
        kill -9 "$pid" $(pgrep -P "$pid" || true) 2>/dev/null || true
        while runs "$RUN" "$1"; do sleep 0.01; done
    fi
    rm -f "$RUN/$1.pid"
}

shut_down() { # I
    run_on "$1" 'systemctl poweroff --no-block' >/dev/null || true
    for _ in $(seq 600); do
        runs "$RUN" "$1" || break
        sleep 0.1
    done
    cut_power "$1"
}

run_on() { # I COMMAND…
    local i=$1 script
    shift
    script="$*"
    [ $# = 1 ] || script=$(printf '%q ' "$@")
    # The last line is the status; the one before it ends with the newline that precedes the status.
    # shellcheck disable=SC2016
    timeout "$PATIENCE" nsenter "--net=/run/netns/$NS" bash -c 'exec 3<>"/dev/tcp/10.99.0.$1/2222" || exit 255
        printf "%s\0" "$2" >&3; rc=255 last= have=
        while IFS= read -r line <&3; do
            case $line in $'"'\001'"'rc=*) rc=${line#*=}; break ;; esac
            [ -z "$have" ] || printf "%s\n" "$last"
            last=$line have=1
        done
        [ -z "$last" ] || printf "%s\n" "$last"
        exit $rc' - "$i" "$script"
}

put() { # I FILE PATH
    local name
    name=$(mktemp -u "put.XXXXXXXX")
    cp --reflink=auto "$2" "$RUN/share/$name"
    run_on "$1" "mkdir -p '$(dirname "$3")' && cp -p /mnt/test/$name '$3.$name' && mv '$3.$name' '$3'" || fail "cannot copy $2 to $3 on host $1"
    rm -f "$RUN/share/$name"
}

down() {
    local pid
    for pid in "$RUN"/*.pid; do
        [ ! -e "$pid" ] || cut_power "$(basename "$pid" .pid)"
    done
    [ ! -e "/run/netns/$NS" ] || ip netns del "$NS"
    rm -rf "$RUN"
}

owner_lives() { # FOLDER
    local pid since
    read -r pid since 2>/dev/null <"$1/owner" || return 0
    [ -n "$since" ] && [ "$(started "$pid")" = "$since" ]
}

sweep() {
    local run
    for run in "$RUNS"/*/; do
        [ -d "$run" ] && ! owner_lives "$run" || continue
        BERTH_HOSTS_RUN=${run%/} "$HERE/hosts.sh" down
    done
}

up() { # N
    [ ! -e "$RUN/owner" ] || fail "$RUN is up already"
    (lock hosts && build && touch "$MADE") || exit 1
    sweep
    mkdir -p "$RUN/share"
    echo "${BERTH_HOSTS_OWNER:-1} $(started "${BERTH_HOSTS_OWNER:-1}")" >"$RUN/owner"
    trap down EXIT
    network_up
    local i
    for i in $(seq "$1"); do boot "$i"; done
    for i in $(seq "$1"); do booted "$i"; done
    trap - EXIT
}

command=${1:-}
shift || true
case $command in
build) (lock hosts && build) ;;
up) up "${1:-3}" ;;
exec) run_on "$@" ;;
put) put "$@" ;;
cut) cut_power "$1" ;;
off) shut_down "$1" ;;
boot) boot "$1" && booted "$1" ;;
link) in_net ip link set "tap$1" "$2" ;;
host) exec nsenter "--net=/run/netns/$NS" "$@" ;;
pid) runs "$RUN" "$1" && cut -d' ' -f1 "$RUN/$1.pid" ;;
netns) echo "$NS" ;;
share) echo "$RUN/share" ;;
down) down ;;
sweep) sweep ;;
*) fail "usage: hosts.sh build | up N | exec I COMMAND… | put I FILE PATH | share | cut I | off I | boot I | link I up|down | host COMMAND… | pid I | netns | down | sweep" ;;
esac
