# SPDX-License-Identifier: BSD-3-Clause
#
# lib.sh - a server and Linux's own NFS client in a network namespace of the test's own
#
# Sourced by the tests here. They run again inside a namespace (as root, or as any user with a user namespace); there,
# tap devices connect User Mode Linux kernels, which are the clients, with the server at 10.77.0.1.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${BUILD:-$root/build}
case $build in /*) ;; *) build=$root/$build ;; esac

skip() { echo "$1"; exit 77; }

if [ -z "${IN_NAMESPACE:-}" ]; then
	for tool in linux.uml unshare ip modprobe mount.nfs e2fsck debugfs; do
		PATH=$PATH:/sbin:/usr/sbin command -v $tool >/dev/null || skip "$tool is missing"
	done
	[ -c /dev/net/tun ] || skip "no /dev/net/tun"
	flags=-nm
	[ "$(id -u)" = 0 ] || flags=-Urnm
	unshare $flags true 2>/dev/null || skip "no permission to make a network namespace"
	IN_NAMESPACE=1 exec unshare $flags "$0" "$@"
fi
PATH=$PATH:/sbin:/usr/sbin

dir=$(mktemp -d "${TMPDIR:-/tmp}/vhdnfs-linux.XXXXXX")
server=
kernels=
cleanup() {
	trap - EXIT
	for k in $kernels; do kill -KILL -- "-$k" "$k" 2>/dev/null; done # each leads a group
	[ -z "$server" ] || kill -TERM "$server" 2>/dev/null
	wait 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT

fail() { echo "FAIL: $*"; for f in "$dir"/*/boot "$dir"/*/output "$dir"/*/console "$dir"/server.log; do
	[ -f "$f" ] && { echo "== $f"; tail -n 60 "$f"; }; done; exit 1; }

ip link set lo up
ip link add br0 type bridge 2>/dev/null || true
bridge=$(ip link show br0 >/dev/null 2>&1 && echo 1 || echo 0)
if [ "$bridge" = 1 ]; then
	ip addr add 10.77.0.1/24 dev br0
	ip link set br0 up
fi

modules=$(ls -d /usr/lib/uml/modules/6.1.* 2>/dev/null | head -n 1)
mkdir -p "$dir/modroot/lib/modules"
ln -s "$modules" "$dir/modroot/lib/modules/$(basename "${modules:-none}")"

serve() { # serve IMAGE [OPTION…] - starts the server and waits until it is ready
	: >"$dir/server.log"
	"$build/vhdnfsd" --no-root-squash --listen 10.77.0.1:2049 "${@:2}" "$1" 2>"$dir/server.log" &
	server=$!
	for _ in $(seq 100); do
		grep -q 'ready on' "$dir/server.log" && return
		kill -0 "$server" 2>/dev/null || fail "the server did not start"
		sleep 0.1
	done
	fail "the server is not ready"
}

stop_server() {
	kill -TERM "$server"
	wait "$server" || fail "the server did not stop cleanly"
	server=
}

boot() { # boot N - starts client number N (2 …) with the job on standard input; sets `kernel`
	local n=$1 work=$dir/client$1 preload=
	mkdir -p "$work"
	cat >"$work/job.sh"
	ip tuntap add dev "tap$n" mode tap
	if [ "$bridge" = 1 ]; then ip link set "tap$n" master br0; else ip addr add 10.77.0.1/24 dev "tap$n"; fi
	ip link set "tap$n" up
	[ -f "$build/linux-client/uml_xsave.so" ] && preload=$build/linux-client/uml_xsave.so
	LD_PRELOAD=$preload TMPDIR=$work linux.uml mem=768M "umid=vhdnfs$$-$n" "uml_dir=$work/uml" rootfstype=hostfs rootflags=/ ro \
		init="$here/init" "vec0:transport=tap,ifname=tap$n,depth=128,gro=1" con=null con0=null,fd:1 quiet \
		"work=$work" "modules=$dir/modroot" "net=$n" >"$work/console" 2>&1 </dev/null &
	kernel=$!
	kernels="$kernels $kernel"
}

finish() { # finish N PID [SECONDS] - waits for client N; its job must have ended with 0
	local left=$((${3:-240} * 5))
	while kill -0 "$2" 2>/dev/null; do
		[ $left -gt 0 ] || fail "client $1 did not finish in time"
		left=$((left - 1))
		sleep 0.2
	done
	ip link del "tap$1" 2>/dev/null
	[ "$(cat "$dir/client$1/status" 2>/dev/null)" = 0 ] || fail "client $1: status $(cat "$dir/client$1/status" 2>/dev/null || echo none)"
}

# check_raw FILE - the file system is clean. Files without a name that clients may come back for are on the list of orphans when a
# server ends in its grace period: e2fsck is to clear that, and nothing else.
check_raw() {
	if dumpe2fs -h "$1" 2>/dev/null | grep -q '^First orphan'; then
		e2fsck -p "$1" >"$dir/fsck" 2>&1 || [ $? = 1 ] || { cat "$dir/fsck"; fail "e2fsck -p"; }
	fi
	e2fsck -fn "$1" >"$dir/fsck" 2>&1 || { cat "$dir/fsck"; fail "e2fsck of $1"; }
}

check_image() { # check_image IMAGE - the file system inside is clean; leaves $dir/raw
	rm -f "$dir/raw"
	if command -v qemu-img >/dev/null; then
		qemu-img convert -f vpc -O raw "$1" "$dir/raw" || fail "qemu-img does not read $1"
	else
		"$build/vhdnfs" image convert --to raw "$1" "$dir/raw" || fail "convert"
	fi
	check_raw "$dir/raw"
}

