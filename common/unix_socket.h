/*
 * Who owns the path of a unix socket, and who may connect.
 *
 * A socket has a lock file beside it, PATH.lock, whose flock the owner holds from before the socket
 * exists until after it is gone. The lock is what makes "is it stale?" a question without a race:
 * of two processes that find a stale socket at the same moment, one would remove the other's.
 *
 * Calling sequence: claim; bind and listen (or _listen, which does both); release.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/error.h"

/* A stale socket in the way is removed; a live one is -EADDRINUSE, any other file -EEXIST. */
int unix_socket_claim(const char *path, int *ret_lock_fd, struct error *err);
/* Removes the lock file; the socket itself has been closed and removed by its owner. */
void unix_socket_release(const char *path, int lock_fd);

/* A bind between the two makes a socket that only the owner can connect to. They hold a lock: the
 * umask belongs to the process. */
mode_t unix_socket_private_begin(void);
void unix_socket_private_end(mode_t old);

/* Sets 0600, or with a group (may be NULL) 0660 and that group. */
int unix_socket_admit(const char *path, const char *group, struct error *err);

/* Which socket that is, whatever the path is called in this or another mount namespace: equal for
 * equal files of one kernel. -errno when there is none. */
#define UNIX_SOCKET_IDENTITY_BYTES 48
int unix_socket_identity(const char *path, char ret_text[UNIX_SOCKET_IDENTITY_BYTES]);

/* Whether the process at the other end is of our user or root. */
bool unix_socket_peer_is_ours(int fd);

/* Binds, listens and sets 0600; the path was claimed before. */
int unix_socket_listen(const char *path, int *ret_fd, struct error *err);
/* The same of another type than SOCK_STREAM. */
int unix_socket_listen_as(const char *path, int type, int *ret_fd, struct error *err);
