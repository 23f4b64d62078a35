#include "origin/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"

/* Kernels before 5.6 lack openat2, and old container sandboxes answer it with EPERM. */
static atomic_bool openat2_missing;

static int try_openat2(int root_fd, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {.flags = (uint64_t)flags, .resolve = resolve};
	long fd = -1;

	if (atomic_load(&openat2_missing))
		return -ENOSYS;
	for (int i = 0; i < 16; i++) {
		fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
		/* EAGAIN: something was renamed while the kernel looked. */
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	if (fd >= 0)
		return (int)fd;
	return -errno;
}

/* Finds out once whether openat2 works at all, so that EPERM of a file is not taken for a sandbox.
 */
static bool have_openat2(int root_fd)
{
	static atomic_bool probed;
	int fd;

	if (!atomic_load(&probed)) {
		fd = try_openat2(root_fd, ".", O_PATH | O_CLOEXEC, RESOLVE_BENEATH);
		if (fd >= 0)
			close(fd);
		else if (fd == -ENOSYS || fd == -EPERM || fd == -EINVAL)
			atomic_store(&openat2_missing, true);
		atomic_store(&probed, true);
	}
	return !atomic_load(&openat2_missing);
}

static bool is_odd(const char *component, size_t len)
{
	return len == 0 || len > NAME_MAX || (len == 1 && component[0] == '.') ||
	       (len == 2 && component[0] == '.' && component[1] == '.');
}

static int open_by_component(int root_fd, const char *path, size_t len, int flags)
{
	cleanup_fd int dir = -1;
	const char *end = path + len;

	for (;;) {
		const char *slash = memchr(path, '/', (size_t)(end - path));
		size_t n = (size_t)((slash ? slash : end) - path);
		char name[NAME_MAX + 1];
		int fd;

		if (is_odd(path, n))
			return n > NAME_MAX ? -ENAMETOOLONG : -EINVAL;
		memcpy(name, path, n);
		name[n] = '\0';
		fd = openat(dir >= 0 ? dir : root_fd, name,
			(slash ? O_PATH | O_DIRECTORY : flags) | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (!slash)
			return fd;
		if (dir >= 0)
			close(dir);
		dir = fd;
		path = slash + 1;
	}
}

static bool all_components_plain(const char *path, size_t len)
{
	const char *end = path + len;

	for (;;) {
		const char *slash = memchr(path, '/', (size_t)(end - path));

		if (is_odd(path, (size_t)((slash ? slash : end) - path)))
			return false;
		if (!slash)
			return true;
		path = slash + 1;
	}
}

int beneath_open(int root_fd, const char *path, size_t len, int flags)
{
	char text[PATH_MAX];
	int fd;

	if (len == 0) {
		fd = openat(root_fd, ".", flags | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	if (len >= sizeof(text) || !have_openat2(root_fd))
		return open_by_component(root_fd, path, len, flags);
	if (!all_components_plain(path, len))
		return -EINVAL;
	memcpy(text, path, len);
	text[len] = '\0';
	fd = try_openat2(root_fd, text, flags | O_NOFOLLOW | O_CLOEXEC,
		RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
	return fd == -EAGAIN ? open_by_component(root_fd, path, len, flags) : fd;
}

/* As text only: does `target`, seen from the link's directory, climb above the root? Sets
 * *ret_dives when ".." comes after a name: where that leads depends on what the name is. */
static bool stays_as_text(const char *path, size_t len, const char *target, bool *ret_dives)
{
	long depth = 0;
	bool named = false;

	*ret_dives = false;
	if (target[0] == '/' || target[0] == '\0')
		return false;
	for (size_t i = 0; i < len; i++)
		depth += path[i] == '/';
	for (const char *at = target; *at;) {
		size_t n = strcspn(at, "/");

		if (n == 2 && at[0] == '.' && at[1] == '.') {
			*ret_dives = *ret_dives || named;
			if (--depth < 0)
				return false;
		} else if (n > 0 && !(n == 1 && at[0] == '.')) {
			named = true;
			depth++;
		}
		at += n;
		at += *at == '/';
	}
	return true;
}

bool beneath_symlink_stays(int root_fd, const char *path, size_t len, const char *target)
{
	char text[PATH_MAX];
	bool dives;
	int fd;

	if (!stays_as_text(path, len, target, &dives))
		return false;
	if (len >= sizeof(text) || !have_openat2(root_fd))
		return !dives;
	memcpy(text, path, len);
	text[len] = '\0';
	fd = try_openat2(root_fd, text, O_PATH | O_CLOEXEC, RESOLVE_BENEATH);
	if (fd >= 0)
		close(fd);
	/* A link that leads nowhere (yet) is kept only if no later link can turn it outwards. */
	return fd >= 0 || (fd != -EXDEV && fd != -EAGAIN && !dives);
}
