#!/bin/sh
# A Go toolchain to build the test servers with: Debian 13's, unpacked outside of the system.
#
# Why not the distribution's: Debian 12 has 1.19, its backports 1.23, and MinIO needs 1.24. The
# binaries are static, so Debian 13's run on both. Nor one that is on the PATH: what is built would
# depend on who builds it.
#
# Result: $deps_root/golang/bin/go (a link).
set -eu

deps_name=golang
here=$(dirname "$0")
# shellcheck source=tools/deps/common.sh
. "$here/common.sh"

suite=trixie
version=1.24
deps_current "$0" "$here/common.sh"
deps_need flock
deps_begin
echo "$deps_name: unpacking Go $version from Debian $suite (50 MB)" >&2
go=$deps_root/golang
rm -rf "$go"
deps_unpack "$suite" "$go" "golang-$version-go" "golang-$version-src"
ln -s "usr/lib/go-$version/bin" "$go/bin"
deps_run env GOTOOLCHAIN=local "$go/bin/go" version
deps_done
