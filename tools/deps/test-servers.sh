#!/bin/sh
# The servers and clients that tests and benches use and that Debian lacks: MinIO (S3 with Signature
# V4), versitygw (S3, a second opinion), toxiproxy (faults between peers), grpcurl. Built once by the
# Go of go.sh, outside the tree. What cannot be had, for want of a network say, is left out with a
# word; the tests that want it are then skipped.
set -eu

here=$(dirname "$0")
root=${GRANARY_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/granary-dev}
bin=$root/go/bin
work=$root/go/work

say() {
	echo "test servers: $*" >&2
}

# go_install MODULE@VERSION TOOLCHAIN
# Modules and objects are of no use afterwards (2 GB), so they do not go to the user's own. The
# checksum database stays on; GOPROXY and the like are the machine's to set.
go_install() {
	env -u GOROOT -u GOOS -u GOARCH PATH="$root/golang/bin:$PATH" GOTOOLCHAIN="$2" \
		GOFLAGS="-modcacherw -buildvcs=false" CGO_ENABLED=0 GOPATH="$work/path" \
		GOMODCACHE="$work/modules" GOCACHE="$work/cache" GOBIN="$work/bin" go install "$1"
}

# build MODULE@VERSION BINARY NAME [TOOLCHAIN]: $bin/NAME, if it is not there. A module that is too
# new for the Go of go.sh names one, go1.25.5 say: Go has it from the module proxy.
build() {
	if [ -x "$bin/$3" ] && [ "$(cat "$bin/.$3" 2>/dev/null)" = "$1" ]; then
		return
	fi
	if ! "$here/go.sh"; then
		say "no Go to build them with: the tests that want them are skipped"
		exit 0
	fi
	say "building $3, once (all of them take five to ten minutes)"
	if ! go_install "$1" "${4:-local}" >"$root/go/$3.log" 2>&1; then
		tail -n 5 "$root/go/$3.log" >&2
		say "cannot build $3 (see $root/go/$3.log): the tests that want it are skipped"
		return
	fi
	mv "$work/bin/$2" "$bin/$3"
	echo "$1" >"$bin/.$3"
}

mkdir -p "$bin" "$work"
exec 9>"$root/go/lock"
flock -w 1800 9 || {
	say "another build holds $root/go/lock"
	exit 1
}
"$here/promtool.sh" || say "no promtool: Prometheus is not asked about the page of metrics"
build github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c minio minio
build github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0 server toxiproxy-server
build github.com/Shopify/toxiproxy/v2/cmd/cli@v2.5.0 cli toxiproxy-cli
build github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 grpcurl grpcurl go1.25.5
build github.com/versity/versitygw/cmd/versitygw@v1.8.0 versitygw versitygw go1.25.5
rm -rf "$work"
