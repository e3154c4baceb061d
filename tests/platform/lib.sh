# Shared by the scripts of this folder (bash): where things are kept, locks, daemons by their identity.

CACHE=${BERTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth}
WORDS="tests/platform/${0##*/}"

say() { echo "$*" >&2; }
fail() {
    echo "$WORDS: $*" >&2
    exit 1
}

# Only one at a time of whatever has this name; the others wait. Kept until the script ends; daemons
# must not inherit it, so `start_daemon` closes it.
lock() {
    mkdir -p "$CACHE/locks"
    exec 9>"$CACHE/locks/$1"
    flock -w "${2:-1800}" 9 || fail "another run holds $CACHE/locks/$1"
}

# Installs Debian packages that lack their program: install_missing PROGRAM=PACKAGE...
install_missing() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        fail "missing: ${missing[*]}; install them (apt-get install ${missing[*]}), or run as root on Debian to have it done"
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2; } ||
        fail "apt-get could not install ${missing[*]}; its messages are above"
}

# The start time of a process, which tells a reused pid apart; nothing for one that is gone or a zombie.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# start_daemon FOLDER NAME COMMAND...: FOLDER/NAME.log has its output, FOLDER/NAME.pid who it is.
start_daemon() {
    local dir=$1 name=$2
    shift 2
    setsid "$@" >"$dir/$name.log" 2>&1 </dev/null 9>&- &
    local pid=$!
    echo "$pid $(started "$pid")" >"$dir/$name.pid"
}

# Whether the daemon that was started runs.
runs() {
    local pid since
    read -r pid since 2>/dev/null <"$1/$2.pid" || return 1
    [ -n "$since" ] && [ "$(started "$pid")" = "$since" ]
}

# stop_daemon FOLDER NAME [SECONDS]: SIGTERM, then SIGKILL; only ever the process that was started.
stop_daemon() {
    local pid i
    if runs "$1" "$2"; then
        pid=$(cut -d' ' -f1 "$1/$2.pid")
        kill "$pid"
        for ((i = 0; i < ${3:-20} * 10; i++)); do
            runs "$1" "$2" || break
            sleep 0.1
        done
        ! runs "$1" "$2" || kill -9 "$pid"
    fi
    rm -f "$1/$2.pid"
}

# wait_for SECONDS FOLDER NAME WHAT CONDITION...: until the condition holds or the daemon has died.
wait_for() {
    local seconds=$1 dir=$2 name=$3 what=$4 i
    shift 4
    for ((i = 0; i < seconds * 10; i++)); do
        ! "$@" || return 0
        runs "$dir" "$name" || {
            tail -20 "$dir/$name.log" >&2
            fail "$name died before $what; the end of $dir/$name.log is above"
        }
        sleep 0.1
    done
    tail -20 "$dir/$name.log" >&2
    fail "no $what within $seconds s; the end of $dir/$name.log is above"
}

# Unmounts everything below a folder, deepest first.
unmount_below() {
    awk -v d="$1/" 'index($2, d) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
        umount "$mount" 2>/dev/null || umount -l "$mount"
    done
}
