/*
 * Scope-bound release of resources: `cleanup_free char *s = NULL;` frees s when the scope ends,
 * `steal(&s)` moves it out. Every release function accepts the empty value (NULL, -1).
 */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* Defines `fn##_ptr(T *p)`, the form the cleanup attribute wants, from `fn(T)`. */
#define DEFINE_CLEANUP(type, fn)             \
	static inline void fn##_ptr(type *p) \
	{                                    \
		if (*p)                      \
			fn(*p);              \
	}

static inline void cleanup_free_ptr(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_fd_ptr(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_file_ptr(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_dir_ptr(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define cleanup_free CLEANUP(cleanup_free_ptr)
#define cleanup_fd CLEANUP(cleanup_fd_ptr)
#define cleanup_file CLEANUP(cleanup_file_ptr)
#define cleanup_dir CLEANUP(cleanup_dir_ptr)

static inline int steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define steal(ptr)                                  \
	({                                          \
		__typeof__(*(ptr)) taken_ = *(ptr); \
		*(ptr) = NULL;                      \
		taken_;                             \
	})
