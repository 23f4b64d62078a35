/*
 * The only place where errno meets gRPC status. Each errno has one status; a status comes back as
 * the one errno that rpc.h promises for it.
 */
#pragma once

#include <grpc/status.h>

/* `code` is a negative errno. */
grpc_status_code rpc_status_of_errno(int code);
/* 0 for OK, otherwise negative. */
int rpc_status_to_errno(grpc_status_code status);
/* "OK", "NOT_FOUND", ... */
const char *rpc_status_name(grpc_status_code status);
