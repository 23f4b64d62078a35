#!/bin/sh
# DLIO, the storage benchmark, with the TensorFlow that its TFRecord workloads want, for benches only:
# in a Python of its own over Debian's (torch, mpi4py, numpy), pinned by hashes (dlio.txt), outside the
# tree. Where it cannot be had, its rows are left out.
set -eu

here=$(dirname "$0")
root=${GRANARY_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/granary-dev}/dlio
wanted=$(sha256sum <"$here/dlio.txt")

[ "$(cat "$root/stamp" 2>/dev/null)" = "$wanted" ] && exit 0
rm -rf "$root"
mkdir -p "$root"
echo "dlio: installing dlio-benchmark and tensorflow-cpu" >&2
if ! { /usr/bin/python3 -m venv --system-site-packages "$root/venv" &&
	"$root/venv/bin/pip" install -q --no-deps --require-hashes -r "$here/dlio.txt"; } \
	>"$root/log" 2>&1; then
	rm -rf "$root/venv"
	echo "dlio: cannot install it (see $root/log); its rows are left out of the bench" >&2
	exit 0
fi
# Called for each file that is generated, for indexes that only DALI reads.
printf '#!/bin/sh\n' >"$root/venv/bin/tfrecord2idx"
chmod +x "$root/venv/bin/tfrecord2idx"
echo "$wanted" >"$root/stamp"
