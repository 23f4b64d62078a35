#!/bin/sh
# Builds libfuse 3.18.3 from Debian sid's source package as a static library.
#
# Why not the distribution's: Debian 12 has 3.14, Debian 13 has 3.17.2; FUSE over
# io_uring came with 3.18.  Only the library is built: mounting still runs the
# system's setuid fusermount3, which is found through PATH or in /usr/bin.
#
# Result below $prefix (see common.sh): include/fuse3/, lib/libfuse3.a,
# lib/pkgconfig/fuse3.pc.
set -eu

deps_name=libfuse
here=$(dirname "$0")
# shellcheck source=tools/deps/common.sh
. "$here/common.sh"

version=3.18.3
deps_current "$0" "$here/common.sh"
deps_need meson ninja pkg-config tar xz flock
for module in liburing numa; do
	pkg-config --exists "$module" || deps_die "needs lib$module's headers (packages liburing-dev, libnuma-dev)"
done
deps_begin
deps_fetch fuse3 "$version-1" \
	"bcd19582c5e30f7fe45dd86a5540e998590aa01903afc7ebcbeea6c8ac5421ee fuse3_$version.orig.tar.gz" \
	"c562192287e9ab78656e3ba1faf2cf837cbb0b775f62b97ba1f9993e7eb596e4 fuse3_$version-1.debian.tar.xz"

src=$deps_build/src
obj=$deps_build/obj
mkdir "$src"
deps_run tar -xf "$deps_tarballs/fuse3_$version.orig.tar.gz" -C "$src" --strip-components=1
# 3.18.3-1 has no source patches; its debian/ folder is pinned all the same
# so that a later version with patches is noticed here.
deps_run tar -xf "$deps_tarballs/fuse3_$version-1.debian.tar.xz" -C "$src"
[ ! -s "$src/debian/patches/series" ] || deps_die "debian/patches is not empty: apply it here"

# Configured for /usr, because the library has the place of fusermount3 compiled
# in ($prefix/bin), then moved into our prefix below.
deps_run meson setup "$obj" "$src" --prefix=/usr --libdir=lib --buildtype=debugoptimized \
	-Ddefault_library=static -Dexamples=false -Dtests=false -Dutils=false \
	-Denable-io-uring=true -Db_ndebug=false
grep -q '^#define HAVE_URING' "$obj/fuse_config.h" ||
	deps_die "io_uring support was not found by meson (log: $deps_log)"
deps_run ninja -C "$obj" -j "$deps_jobs"
stage=$deps_build/stage
deps_run env DESTDIR="$stage" meson install -C "$obj" --no-rebuild

# pcfiledir keeps the .pc file right wherever the prefix is copied.
# shellcheck disable=SC2016
sed -i 's|^prefix=.*|prefix=${pcfiledir}/../..|' "$stage/usr/lib/pkgconfig/fuse3.pc"
rm -rf "$deps_prefix/include/fuse3" "$deps_prefix/lib/libfuse3.a"
mkdir -p "$deps_prefix/include" "$deps_prefix/lib/pkgconfig"
cp -a "$stage/usr/include/fuse3" "$deps_prefix/include/"
cp -a "$stage/usr/lib/libfuse3.a" "$deps_prefix/lib/"
cp -a "$stage/usr/lib/pkgconfig/fuse3.pc" "$deps_prefix/lib/pkgconfig/"
deps_done
