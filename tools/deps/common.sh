# shellcheck shell=sh
# Shared by tools/deps/*.sh: where third-party software that the distribution
# has too old is built, and how it is fetched from other Debian suites.
#
# A script sets `deps_name` and sources this file, then calls
#
#	deps_current INPUT...     exits 0 at once when the stamp says nothing changed
#	deps_begin                takes the lock, makes an empty $deps_build
#	deps_fetch PKG VERSION "SHA256 FILE" ...	source files
#	deps_unpack SUITE DIR PKG ...			binary packages
#	deps_done                 writes the stamp
#
# Everything lives below $deps_root; the system's apt configuration, lists and
# caches are only read (for a proxy), never written.  Authenticity of sources rests
# on the pinned SHA-256 of every file, so a stale or odd index can only make a fetch
# fail; that of binary packages on apt and the signature of their suite.

# Scripts compile the same way whoever calls them: a sanitizer build of our own
# code must not leak its CFLAGS into a library shared by every build.
unset CFLAGS CPPFLAGS LDFLAGS MAKEFLAGS DESTDIR
export LC_ALL=C

deps_root=${GRANARY_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/granary-dev}
deps_prefix=$deps_root/prefix
deps_tarballs=$deps_root/tarballs
deps_mirror=${GRANARY_DEBIAN_MIRROR:-http://deb.debian.org/debian}
deps_jobs=${GRANARY_JOBS:-$(nproc)}
: "${deps_name:?}"
deps_build=$deps_root/build/$deps_name
deps_stamp=$deps_root/stamps/$deps_name
deps_log=$deps_root/build/$deps_name.log

deps_die() {
	echo "$deps_name: $*" >&2
	exit 1
}

# The stamp is the hash of everything that decides the result, prefix included:
# a cache directory that was moved must be built again.
deps_current() {
	deps_hash=$({ cat -- "$@" && echo "$deps_prefix"; } | sha256sum | cut -d' ' -f1) ||
		deps_die "cannot read the inputs of the build"
	if [ "$(cat "$deps_stamp" 2>/dev/null)" = "$deps_hash" ]; then
		exit 0
	fi
}

deps_begin() {
	umask 022
	mkdir -p "$deps_root/stamps" "$deps_root/build" "$deps_tarballs" "$deps_prefix" ||
		deps_die "cannot write to $deps_root"
	exec 9>"$deps_root/lock"
	flock -w 1800 9 || deps_die "another build holds $deps_root/lock"
	# Whoever held the lock may just have built the same thing.
	if [ "$(cat "$deps_stamp" 2>/dev/null)" = "$deps_hash" ]; then
		exit 0
	fi
	rm -f "$deps_stamp"
	rm -rf "$deps_build"
	mkdir -p "$deps_build"
	: >"$deps_log"
}

deps_need() {
	for deps_tool in "$@"; do
		command -v "$deps_tool" >/dev/null || deps_die "needs $deps_tool, which is not installed"
	done
}

# Runs a build step with its output in the log, and shows the end of that on failure.
deps_run() {
	if ! "$@" >>"$deps_log" 2>&1; then
		tail -n 15 "$deps_log" >&2
		deps_die "failed: $* (whole output: $deps_log)"
	fi
}

deps_done() {
	mkdir -p "$deps_root/stamps"
	echo "$deps_hash" >"$deps_stamp.tmp"
	mv "$deps_stamp.tmp" "$deps_stamp"
	rm -rf "$deps_build"
}

deps_verified() {
	[ -f "$2" ] && [ "$(sha256sum <"$2" | cut -d' ' -f1)" = "$1" ]
}

# deps_apt_conf TYPE SUITE: apt with private state and that one source, `deb` or
# `deb-src`.  `#clear` removes hooks and sandbox settings of the system that act
# outside $deps_root.
deps_apt_conf() {
	deps_apt=$deps_root/apt
	mkdir -p "$deps_apt/lists/partial" "$deps_apt/cache/archives/partial"
	deps_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -r "$deps_keyring" ] || deps_die "needs $deps_keyring (package debian-archive-keyring)"
	echo "$1 [check-valid-until=no signed-by=$deps_keyring] $deps_mirror $2 main" \
		>"$deps_apt/sources.list"
	cat >"$deps_apt/apt.conf" <<CONF
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::Etc::sourcelist "$deps_apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$deps_apt/lists";
Dir::Cache "$deps_apt/cache";
Dir::Cache::archives "$deps_apt/cache/archives";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::Retries "3";
APT::Sandbox::User "";
CONF
}

deps_apt_get() {
	apt-get -c "$deps_apt/apt.conf" -q "$@"
}

# deps_fetch PKG VERSION "SHA256 FILE"...: afterwards every FILE is in
# $deps_tarballs with that checksum.  The index is updated only when a file is missing.
deps_fetch() {
	deps_pkg=$1 deps_version=$2
	shift 2
	deps_missing=
	for deps_pin in "$@"; do
		deps_verified "${deps_pin% *}" "$deps_tarballs/${deps_pin#* }" || deps_missing=1
	done
	[ -n "$deps_missing" ] || return 0

	deps_need apt-get
	deps_apt_conf deb-src sid
	deps_fetched=$deps_build/fetch
	mkdir -p "$deps_fetched"
	deps_run deps_apt_get update
	if ! (cd "$deps_fetched" && deps_apt_get source --download-only --only-source \
		"$deps_pkg=$deps_version") >>"$deps_log" 2>&1; then
		deps_die "cannot fetch $deps_pkg $deps_version from $deps_mirror sid;" \
			"set GRANARY_DEBIAN_MIRROR to a snapshot that has it, or put the files into" \
			"$deps_tarballs (log: $deps_log)"
	fi
	for deps_pin in "$@"; do
		deps_file=${deps_pin#* }
		deps_verified "${deps_pin% *}" "$deps_fetched/$deps_file" ||
			deps_die "checksum of $deps_file differs from the pinned one"
		mv "$deps_fetched/$deps_file" "$deps_tarballs/$deps_file"
	done
}

# deps_unpack SUITE DIR PKG...: the files of binary packages below DIR, without
# installing them; the version is the one that SUITE has now.
deps_unpack() {
	deps_suite=$1 deps_to=$2
	shift 2
	deps_need apt-get dpkg-deb
	deps_apt_conf deb "$deps_suite"
	# Installed packages are not asked, else an installed newer version is the one that is wanted.
	echo 'Dir::State::status "/dev/null";' >>"$deps_apt/apt.conf"
	mkdir -p "$deps_build/debs"
	deps_run deps_apt_get update
	(cd "$deps_build/debs" && deps_apt_get download "$@") >>"$deps_log" 2>&1 ||
		deps_die "cannot fetch $* from $deps_mirror $deps_suite;" \
			"set GRANARY_DEBIAN_MIRROR to a mirror that has it (log: $deps_log)"
	for deps_deb in "$deps_build"/debs/*.deb; do
		deps_run dpkg-deb -x "$deps_deb" "$deps_to"
	done
}
