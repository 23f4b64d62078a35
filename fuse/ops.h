/*
 * The FUSE operations: each takes a request, works on the struct fs that is the session's user
 * data, and replies exactly once. Inner functions return -errno; only the outer ones reply.
 *
 * There is no operation for OPEN and OPENDIR in no-open mode, FLUSH, ACCESS, FSYNC, LSEEK and the
 * like: libfuse answers ENOSYS, once, and the kernel goes on by itself. What changes anything is
 * refused by the kernel (EROFS), for the mount is read-only.
 */
#pragma once

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 18)
#include <fuse_lowlevel.h>

#include "fuse/fs.h"

/* What is immutable is never asked for again. The root is not: a day is too long for a program that
 * wants to know whether the mount still lives, so its attributes are asked for once a second. */
#define OPS_TIMEOUT_S 86400.0
#define OPS_ROOT_TIMEOUT_S 1.0

/* ops_node.c */
void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_readlink(fuse_req_t req, fuse_ino_t ino);

/* ops_dir.c */
void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_readdirplus(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);

/* ops_open.c */
void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* ops_read.c */
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);

/* ops_info.c */
void ops_statfs(fuse_req_t req, fuse_ino_t ino);
void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);

/* Replies with the error of an inner function. A damaged manifest is loud: counted and logged. */
void ops_reply_error(fuse_req_t req, int code);

/* Shared by lookup and readdirplus. */
void ops_fill_entry(const struct fs *fs, const struct fs_node *n, struct fuse_entry_param *ret);
static inline double ops_timeout(const struct fs_node *n)
{
	return n->index == 0 ? OPS_ROOT_TIMEOUT_S : OPS_TIMEOUT_S;
}
static inline struct fs *ops_fs(fuse_req_t req)
{
	return fuse_req_userdata(req);
}
