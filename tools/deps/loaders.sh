#!/bin/sh
# A Python with the loaders that Debian does not have, for tests only: TensorFlow (TFRecord) and
# pyarrow, pinned, outside the tree. Where they cannot be had, the tests that want them are skipped.
set -eu

root=${GRANARY_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/granary-dev}/loaders
packages="tensorflow-cpu==2.21.0 pyarrow==19.0.1"

[ "$(cat "$root/stamp" 2>/dev/null)" = "$packages" ] && exit 0
mkdir -p "$root"
echo "loaders: installing $packages" >&2
# shellcheck disable=SC2086 # two words on purpose
if ! { /usr/bin/python3 -m venv "$root/venv" && "$root/venv/bin/pip" install -q $packages; } \
	>"$root/log" 2>&1; then
	rm -rf "$root/venv"
	echo "loaders: cannot install them (see $root/log); their tests are skipped" >&2
	exit 0
fi
echo "$packages" >"$root/stamp"
