#!/bin/sh
# Builds libs3 2.0 from Debian's source package, with Debian's patches and then
# ours (patches/libs3/, which say what they are for), as a static library.
#
# Why not the distribution's: every Debian has 2.0, which signs with Signature
# V2 only; AWS refuses that. The patched library has the calls of libs3 4.
#
# Result below $prefix (see common.sh): include/libs3.h, lib/libs3.a,
# lib/pkgconfig/libs3.pc.
set -eu

deps_name=libs3
here=$(dirname "$0")
# shellcheck source=tools/deps/common.sh
. "$here/common.sh"

version=2.0
patches=$here/../../patches/libs3
deps_current "$0" "$here/common.sh" "$patches/series" "$patches"/*.patch
deps_need cc ar pkg-config patch tar xz flock
for module in libcurl libxml-2.0 libcrypto; do
	pkg-config --exists "$module" ||
		deps_die "needs the headers of $module (packages libcurl4-openssl-dev, libxml2-dev, libssl-dev)"
done
deps_begin
deps_fetch libs3 "$version-5" \
	"c99857bfbcc9ff47742119bc32f391f38a24acf40cf49902ef3b18b1f0e8c16d libs3_$version.orig.tar.gz" \
	"d3b93344ff9e0c98193a9485a2ef02fa5b11a4ef7658d2c02192a3c8cbfe7205 libs3_$version-5.debian.tar.xz"

src=$deps_build/src
mkdir "$src"
deps_run tar -xf "$deps_tarballs/libs3_$version.orig.tar.gz" -C "$src" --strip-components=1
deps_run tar -xf "$deps_tarballs/libs3_$version-5.debian.tar.xz" -C "$src"

# apply_series DIR: the patches of DIR/series in its order
apply_series() {
	while read -r patch _; do
		case $patch in
		'' | '#'*) continue ;;
		esac
		deps_run patch -d "$src" -p1 -N -F0 --no-backup-if-mismatch -i "$1/$patch"
	done <"$1/series"
}
apply_series "$src/debian/patches"
apply_series "$(cd "$patches" && pwd)"

# The makefile would also build the shared library and the command line tool,
# and the calls that the patches dropped.
modules="bucket compose error_parser general object request request_context
	response_headers_handler sigv4 simplexml util"
# shellcheck disable=SC2046
set -- -std=gnu11 -O2 -g -fPIC -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 \
	-Wall -Wextra -I"$src/inc" \
	-DLIBS3_VER_MAJOR="\"${version%.*}\"" -DLIBS3_VER_MINOR="\"${version#*.}\"" \
	$(pkg-config --cflags libcurl libxml-2.0 libcrypto)
objects=
for module in $modules; do
	deps_run cc "$@" -c "$src/src/$module.c" -o "$deps_build/$module.o"
	objects="$objects $deps_build/$module.o"
done
# shellcheck disable=SC2086
deps_run ar rcsD "$deps_build/libs3.a" $objects

mkdir -p "$deps_prefix/include" "$deps_prefix/lib/pkgconfig"
cp "$src/inc/libs3.h" "$deps_prefix/include/libs3.h"
# In one step: a link of another checkout may read it.
mv "$deps_build/libs3.a" "$deps_prefix/lib/libs3.a"
# Requires, not Requires.private: the library is static, whoever links it needs these.
cat >"$deps_prefix/lib/pkgconfig/libs3.pc" <<'PC'
prefix=${pcfiledir}/../..
includedir=${prefix}/include
libdir=${prefix}/lib

Name: libs3
Description: C library for Amazon S3, with the patches of Granary
Version: 2.0
Requires: libcurl, libxml-2.0, libcrypto
Libs: -L${libdir} -ls3 -pthread
Cflags: -I${includedir}
PC
deps_done
