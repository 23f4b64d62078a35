/*
 * Loaded into a mount's client (LD_PRELOAD): once the file $GRANARY_TEST_HOLD is there, removes it,
 * keeps the next READ from being answered, and has a thread ask the kernel to drop that file's
 * pages: it waits for the page that is being read, in a way that SIGKILL does not end. So does a
 * thread that preloads, but only now and then. Makes $GRANARY_TEST_HOLD.held when it has come to
 * that.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/fuse.h>

#define BLOCK_US 200000 /* until it surely waits */

static int device;
static uint64_t node;

static void *drop_pages(void *arg)
{
	struct fuse_notify_inval_inode_out what = {.ino = node, .off = 0, .len = -1};
	struct fuse_out_header head = {
		.len = sizeof(head) + sizeof(what), .error = FUSE_NOTIFY_INVAL_INODE};
	struct iovec parts[] = {{&head, sizeof(head)}, {&what, sizeof(what)}};

	if (writev(device, parts, 2) < 0)
		perror("held_reply");
	return arg;
}

static void hold(int fd, const struct fuse_in_header *head, const char *path)
{
	char held[4096];
	pthread_t thread;

	device = fd;
	node = head->nodeid;
	if (pthread_create(&thread, NULL, drop_pages, NULL) != 0)
		abort();
	usleep(BLOCK_US);
	snprintf(held, sizeof(held), "%s.held", path);
	close(open(held, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	for (;;)
		pause();
}

__attribute__((visibility("default"))) ssize_t read(int fd, void *buf, size_t count);
ssize_t read(int fd, void *buf, size_t count)
{
	ssize_t (*real)(int, void *, size_t) =
		(ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
	const char *path = getenv("GRANARY_TEST_HOLD");
	ssize_t n = real(fd, buf, count);
	const struct fuse_in_header *head = buf;

	/* Nothing else is read into so large a buffer. */
	if (path && count > (1 << 20) && n > (ssize_t)sizeof(*head) && head->opcode == FUSE_READ &&
		unlink(path) == 0)
		hold(fd, head, path);
	return n;
}
