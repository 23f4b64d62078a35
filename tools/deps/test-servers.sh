#!/bin/sh
# The servers that tests and benches run against and that Debian lacks: MinIO (S3 with Signature V4)
# and toxiproxy (faults between peers). Built once by the Go toolchain, outside the tree. Without Go
# 1.24 or newer they are left out, and the tests that want them say so and are skipped.
set -eu

root=${GRANARY_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/granary-dev}
bin=$root/go/bin

if ! command -v go >/dev/null || ! go version | grep -qE 'go1\.(2[4-9]|[3-9][0-9])'; then
	echo "test servers: no Go 1.24 or newer here, tests against MinIO and toxiproxy are skipped" >&2
	exit 0
fi

# build MODULE@VERSION BINARY NAME
build() {
	stamp=$bin/.$3
	[ -x "$bin/$3" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$1" ] && return
	echo "test servers: building $3 (MinIO takes some minutes, once)" >&2
	mkdir -p "$root/go/tmp" "$bin"
	if ! GOBIN=$root/go/tmp go install "$1" >"$root/go/$3.log" 2>&1; then
		echo "test servers: cannot build $3 (see $root/go/$3.log); its tests are skipped" >&2
		return
	fi
	mv "$root/go/tmp/$2" "$bin/$3"
	echo "$1" >"$stamp"
}

build github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c minio minio
build github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0 server toxiproxy-server
build github.com/Shopify/toxiproxy/v2/cmd/cli@v2.5.0 cli toxiproxy-cli
build github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 grpcurl grpcurl
build github.com/versity/versitygw/cmd/versitygw@v1.8.0 versitygw versitygw
