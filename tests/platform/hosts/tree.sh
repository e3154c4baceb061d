# Sourced by hosts.sh: what hosts boot from, made once: a Debian tree as a disk image, and a kernel that is a program.

SUITE=bookworm
DISK=2G
PACKAGES=systemd,systemd-sysv,dbus,iproute2
# Nothing of a test needs these; without them a host is up in a third of the time.
MASKED="getty.target console-getty.service systemd-networkd systemd-update-utmp systemd-update-utmp-runlevel
    systemd-binfmt systemd-firstboot systemd-repart systemd-pcrphase systemd-pcrphase-sysinit e2scrub_all.timer
    e2scrub_reap.service systemd-pstore kmod-static-nodes apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
    fstrim.timer dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount
    sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount modprobe@drm.service"

# The mirror that this machine's apt uses.
mirror() {
    local found
    found=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
    [ -n "$found" ] || found=$(awk '$1 == "deb" && $2 ~ /^http/ { print $2; exit }' /etc/apt/sources.list 2>/dev/null || true)
    echo "${BERTH_DEBIAN_MIRROR:-${found:-http://deb.debian.org/debian}}"
}

# Another recipe is another image.
recipe() {
    {
        cat "$HERE/hosts/tree.sh"
        find "$HERE/hosts/guest" -type f -print0 | sort -z | xargs -0 cat
    } | sha256sum | cut -c1-12
}

# make_image FOLDER: FOLDER/linux and FOLDER/disk.img.
make_image() {
    local made=$1 tree=$1/tree
    mkdir -p "$made"
    (cd "$made" && apt-get -q download user-mode-linux >"$made/apt.log" 2>&1) ||
        (cd "$made" && apt-get update -qq && apt-get -q download user-mode-linux >"$made/apt.log" 2>&1) ||
        fail "cannot download the package user-mode-linux; see $made/apt.log"
    dpkg-deb -x "$made"/user-mode-linux_*.deb "$made/uml"
    mv "$made/uml/usr/bin/linux.uml" "$made/linux"
    debootstrap --variant=minbase "--include=$PACKAGES" "$SUITE" "$tree" "$(mirror)" >"$made/debootstrap.log" 2>&1 ||
        fail "debootstrap failed; see $made/debootstrap.log"
    rm -rf "$tree"/usr/share/{doc,man,locale,info} "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/*
    cp "$(command -v busybox)" "$tree/usr/bin/busybox"
    cp -rT "$HERE/hosts/guest" "$tree"
    rm -f "$tree/etc/hostname"
    : >"$tree/etc/fstab"
    : >"$tree/etc/machine-id"
    ln -sfn /etc/machine-id "$tree/var/lib/dbus/machine-id"
    mkdir -p "$tree/var/log/journal"
    chroot "$tree" systemctl -q enable test-exec test-net mnt-test.mount
    chroot "$tree" systemctl -q set-default multi-user.target
    # shellcheck disable=SC2086
    chroot "$tree" systemctl -q mask $MASKED
    # There is nothing that they could find; looking for it takes most of a daemon-reload here.
    local generator
    mkdir -p "$tree/etc/systemd/system-generators"
    for generator in "$tree"/usr/lib/systemd/system-generators/*; do
        ln -s /dev/null "$tree/etc/systemd/system-generators/${generator##*/}"
    done
    mkfs.ext4 -q -L root -d "$tree" "$made/disk.img" $DISK
    rm -rf "$tree" "$made/uml" "$made"/*.deb
}
