#!/bin/sh
# promtool, which the metrics' test asks whether Prometheus can read our page. Debian has it only in
# the package of the server, which is not to be installed for that: just the program is unpacked.
#
# Result: $deps_root/go/bin/promtool, where the other programs for tests are.
set -eu

deps_name=promtool
here=$(dirname "$0")
# shellcheck source=tools/deps/common.sh
. "$here/common.sh"

deps_current "$0" "$here/common.sh"
deps_need flock
deps_begin
echo "$deps_name: unpacking it from Debian bookworm (20 MB)" >&2
deps_unpack bookworm "$deps_build/package" prometheus
deps_run "$deps_build/package/usr/bin/promtool" --version
mkdir -p "$deps_root/go/bin"
mv "$deps_build/package/usr/bin/promtool" "$deps_root/go/bin/promtool"
deps_done
