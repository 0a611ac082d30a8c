#!/bin/sh
# A bare Debian in a chroot, for tests of what a fresh machine meets. Sourced; needs root and debootstrap.
# make_root leaves it in $ROOT; clean_up, set as a trap, ends what runs in it and removes it. MIRROR and SUITE can be set.
# The caller defines fail().
SUITE=${SUITE:-bookworm}
MIRROR=${MIRROR:-}
ROOT=

# The mirror this machine uses itself.
configured_mirror()
{
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
		sed -n "s|^URIs: *\\(http[^ ]*/debian\\)/*\$|\\1|p; s|^deb \\(\\[[^]]*\\] \\)\\{0,1\\}\\(http[^ ]*/debian\\)/* $SUITE .*|\\2|p" | head -n1
}

# What still runs in the chroot was started by us; its tests may have mounted things of their own.
clean_up()
{
	[ -n "$ROOT" ] || return 0
	for process in /proc/[0-9]*; do
		[ "$(readlink "$process/root")" != "$ROOT" ] || kill -9 "${process#/proc/}"
	done
	awk -v root="$ROOT" 'index($2 "/", root "/") == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r at; do
		umount "$at" 2>/dev/null || umount -l "$at"
	done
	# never descend into a mount that would not go
	rm -rf --one-file-system "$ROOT"
}

make_devices()
{
	for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
		IFS=: read -r name major minor <<END
$device
END
		mknod -m 666 "$ROOT/dev/$name" c "$major" "$minor"
	done
	ln -s /proc/self/fd "$ROOT/dev/fd"
}

# More arguments: of debootstrap
make_root()
{
	[ "$(id -u)" = 0 ] || fail "needs root"
	command -v debootstrap >/dev/null || fail "debootstrap is missing (apt-get install debootstrap)"
	[ -n "$MIRROR" ] || MIRROR=$(configured_mirror)
	ROOT=$(mktemp -d) || exit 1
	chmod 755 "$ROOT" # users of the chroot enter it
	trap clean_up EXIT
	trap 'exit 1' INT TERM
	echo "* a bare Debian ($SUITE from ${MIRROR:-the default mirror})"
	# shellcheck disable=SC2086
	debootstrap --variant=minbase "$@" "$SUITE" "$ROOT" $MIRROR >"$ROOT.log" 2>&1 || {
		tail -n 20 "$ROOT.log" >&2
		rm -f "$ROOT.log"
		fail "debootstrap failed"
	}
	rm -f "$ROOT.log"
	# A mount point, as / is everywhere: ip netns exec remounts it.
	mount --bind "$ROOT" "$ROOT" || fail "cannot mount"
	mount --make-private "$ROOT" || fail "cannot mount"
	mount -t proc proc "$ROOT/proc" || fail "cannot mount"
	mount -t sysfs sys "$ROOT/sys" || fail "cannot mount"
	mount -t tmpfs -o mode=755 dev "$ROOT/dev" || fail "cannot mount"
	mkdir -p "$ROOT/dev/shm" || fail "cannot mount"
	mount -t tmpfs shm "$ROOT/dev/shm" || fail "cannot mount"
	make_devices
	cp /etc/resolv.conf "$ROOT/etc/resolv.conf"
	[ ! -e /etc/apt/apt.conf.d ] || grep -lsi proxy /etc/apt/apt.conf.d/* | xargs -r cp -t "$ROOT/etc/apt/apt.conf.d/"
}

inside() { chroot "$ROOT" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
