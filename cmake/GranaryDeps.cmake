# The libraries that Granary builds on; docs/dependencies.md says why each was chosen.
# libfuse and libs3 come from the prefix that `./dev setup` fills.

if(DEFINED ENV{GRANARY_DEPS})
	set(default_deps $ENV{GRANARY_DEPS})
elseif(DEFINED ENV{XDG_CACHE_HOME})
	set(default_deps $ENV{XDG_CACHE_HOME}/granary-dev)
else()
	set(default_deps $ENV{HOME}/.cache/granary-dev)
endif()
set(GRANARY_DEPS_PREFIX ${default_deps}/prefix CACHE PATH "Where ./dev setup put libfuse and libs3")

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
set(ENV{PKG_CONFIG_PATH} "${GRANARY_DEPS_PREFIX}/lib/pkgconfig:$ENV{PKG_CONFIG_PATH}")

pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(GRPC REQUIRED IMPORTED_TARGET grpc)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(XML2 REQUIRED IMPORTED_TARGET libxml-2.0)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(FUSE3 REQUIRED IMPORTED_TARGET fuse3>=3.17)
find_library(ROCKSDB_LIBRARY rocksdb REQUIRED)
find_path(UTHASH_INCLUDE uthash.h REQUIRED)
find_program(PROTOC_C protoc-c REQUIRED)
