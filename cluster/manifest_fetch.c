#include "cluster/manifest_fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster/manifest_cache.h"
#include "common/cleanup.h"
#include "granary/v1/cluster.pb-c.h"
#include "manifest/manifest.h"

#define FETCH_PATH "/granary.v1.ClusterService/FetchManifest"
#define CHUNK_DATA_FIELD 1
#define DAMAGED_THERE                                                                          \
	"what the master has is damaged, `granary dataset refresh` or `granary up --refresh` " \
	"makes a new one"

static int write_all(int fd, const unsigned char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive(struct rpc_stream *st, int fd, const char *temp, struct error *err)
{
	cleanup_free unsigned char *data = malloc(RPC_MESSAGE_MAX_BYTES);
	struct rpc_message *msg;
	uint64_t total = 0;
	size_t len;
	int r;

	if (!data)
		return error_set(err, -ENOMEM, "out of memory");
	while ((r = rpc_stream_next(st, &msg, err)) == 0) {
		r = rpc_message_bytes(msg, CHUNK_DATA_FIELD, data, RPC_MESSAGE_MAX_BYTES, &len,
			&granary__v1__manifest_chunk__descriptor, NULL);
		rpc_message_free(msg);
		if (r < 0)
			return error_set(err, -EIO, "the master sent a malformed chunk");
		total += len;
		if (total > MANIFEST_CACHE_FILE_MAX_BYTES)
			return error_set(err, -EIO, "the master sent more than a manifest can be");
		r = write_all(fd, data, len);
		if (r < 0)
			return error_set_errno(err, r, "cannot write %s", temp);
	}
	return r == RPC_STREAM_END ? 0 : r;
}

static int verify(const char *temp, const char *digest, struct error *err)
{
	struct manifest *m;
	int r;

	r = manifest_open(temp, &m, err);
	if (r < 0)
		return error_prefix(err, -EIO, DAMAGED_THERE);
	r = manifest_verify(m, err);
	if (r < 0)
		r = error_prefix(err, -EIO, DAMAGED_THERE);
	else if (strcmp(manifest_info(m)->digest, digest) != 0)
		r = error_set(err, -EIO, "the master sent another manifest than it was asked for");
	manifest_unref(m);
	return r;
}

static int sync_parent(const char *path, struct error *err)
{
	cleanup_free char *copy = strdup(path);
	cleanup_fd int fd = -1;

	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return error_set_errno(err, -errno, "cannot sync the directory of %s", path);
	return 0;
}

static bool show_stream(struct manifest_fetch_cancel *c, struct rpc_stream *st)
{
	mutex_guard(c->mu);
	c->stream = st;
	return !c->cancelled;
}

void manifest_fetch_cancel_locked(struct manifest_fetch_cancel *c)
{
	assert(mutex_held(c->mu));
	c->cancelled = true;
	if (c->stream)
		rpc_stream_cancel(c->stream);
}

static int fetch_to(struct rpc_channel *channel, const char *digest, int fd, const char *temp,
	int64_t deadline_ms, struct manifest_fetch_cancel *cancel, struct error *err)
{
	Granary__V1__FetchManifestRequest request = GRANARY__V1__FETCH_MANIFEST_REQUEST__INIT;
	struct rpc_stream *st;
	int r;

	request.digest = (char *)digest;
	r = rpc_stream_open(channel, FETCH_PATH, &request.base, deadline_ms, &st, err);
	if (r < 0)
		return r;
	if (show_stream(cancel, st))
		r = receive(st, fd, temp, err);
	else
		r = error_set(err, -ECANCELED, "cancelled");
	show_stream(cancel, NULL);
	rpc_stream_close(st);
	if (r < 0)
		return r;
	if (fsync(fd) < 0)
		return error_set_errno(err, -errno, "cannot sync %s", temp);
	return verify(temp, digest, err);
}

int manifest_fetch(struct rpc_channel *channel, const char *digest, const char *path,
	int64_t deadline_ms, struct manifest_fetch_cancel *cancel, struct error *err)
{
	cleanup_free char *temp = NULL;
	cleanup_fd int fd = -1;
	int r;

	if (asprintf(&temp, "%s" MANIFEST_FETCH_INFIX "XXXXXX", path) < 0) {
		temp = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return error_set_errno(err, -errno, "cannot make %s", temp);
	r = fetch_to(channel, digest, fd, temp, deadline_ms, cancel, err);
	if (r == 0 && rename(temp, path) < 0)
		r = error_set_errno(err, -errno, "cannot rename %s to %s", temp, path);
	if (r < 0) {
		unlink(temp);
		return error_prefix(err, r, "manifest %s", digest);
	}
	return sync_parent(path, err);
}
