#include "common/rpc/rpc_status.h"

#include <errno.h>
#include <stddef.h>

/* The first row of a status is the errno that it comes back as. */
static const struct {
	int code;
	grpc_status_code status;
} table[] = {
	{-ENOENT, GRPC_STATUS_NOT_FOUND},
	{-EEXIST, GRPC_STATUS_ALREADY_EXISTS},
	{-EINVAL, GRPC_STATUS_INVALID_ARGUMENT},
	{-ERANGE, GRPC_STATUS_INVALID_ARGUMENT},
	{-ENAMETOOLONG, GRPC_STATUS_INVALID_ARGUMENT},
	{-EINVAL, GRPC_STATUS_OUT_OF_RANGE},
	{-EACCES, GRPC_STATUS_UNAUTHENTICATED},
	{-EPERM, GRPC_STATUS_PERMISSION_DENIED},
	{-ETIMEDOUT, GRPC_STATUS_DEADLINE_EXCEEDED},
	{-ECANCELED, GRPC_STATUS_CANCELLED},
	{-ENOSPC, GRPC_STATUS_RESOURCE_EXHAUSTED},
	{-ENOMEM, GRPC_STATUS_RESOURCE_EXHAUSTED},
	{-EDQUOT, GRPC_STATUS_RESOURCE_EXHAUSTED},
	{-EMFILE, GRPC_STATUS_RESOURCE_EXHAUSTED},
	{-ENFILE, GRPC_STATUS_RESOURCE_EXHAUSTED},
	{-EMSGSIZE, GRPC_STATUS_RESOURCE_EXHAUSTED},
	{-ESTALE, GRPC_STATUS_FAILED_PRECONDITION},
	{-EBUSY, GRPC_STATUS_FAILED_PRECONDITION},
	{-ENOTEMPTY, GRPC_STATUS_FAILED_PRECONDITION},
	{-EOPNOTSUPP, GRPC_STATUS_UNIMPLEMENTED},
	{-ENOSYS, GRPC_STATUS_UNIMPLEMENTED},
	{-EAGAIN, GRPC_STATUS_UNAVAILABLE},
	{-EIO, GRPC_STATUS_INTERNAL},
};

grpc_status_code rpc_status_of_errno(int code)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].code == code)
			return table[i].status;
	return GRPC_STATUS_INTERNAL;
}

int rpc_status_to_errno(grpc_status_code status)
{
	if (status == GRPC_STATUS_OK)
		return 0;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].status == status)
			return table[i].code;
	return -EIO;
}
