#include "cli/keep_set.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void keep_set_init(struct keep_set *s)
{
	s->state = s->device = -1;
	for (size_t i = 0; i < SNAPSHOT_SLOTS; i++)
		s->manifests[i] = (struct keep_set_manifest){.fd = -1};
}

static void replace(int *at, int fd)
{
	if (*at >= 0)
		close(*at);
	*at = fd;
}

void keep_set_close(struct keep_set *s)
{
	replace(&s->state, -1);
	replace(&s->device, -1);
	for (size_t i = 0; i < SNAPSHOT_SLOTS; i++)
		replace(&s->manifests[i].fd, -1);
}

bool keep_set_put(struct keep_set *s, enum keep_kind kind, uint64_t value, int fd)
{
	struct keep_set_manifest *m = &s->manifests[value % SNAPSHOT_SLOTS];

	if (fd < 0)
		return false;
	switch (kind) {
	case KEEP_STATE:
		replace(&s->state, fd);
		return true;
	case KEEP_DEVICE:
		replace(&s->device, fd);
		return true;
	case KEEP_MANIFEST:
		replace(&m->fd, fd);
		m->number = value;
		return true;
	default:
		return false;
	}
}

int keep_set_send(const struct keep_set *s, int sock)
{
	int r = s->device < 0 ? 0 : keep_send(sock, KEEP_DEVICE, 0, s->device);

	for (size_t i = 0; r == 0 && i < SNAPSHOT_SLOTS; i++) {
		const struct keep_set_manifest *m = &s->manifests[i];

		if (m->fd >= 0)
			r = keep_send(sock, KEEP_MANIFEST, m->number, m->fd);
	}
	return r;
}

static int duplicate(int fd)
{
	int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return fd >= 0 && copy < 0 ? -errno : copy;
}

int keep_set_lend(const struct keep_set *s, struct mount_keep *ret)
{
	ret->device = duplicate(s->device);
	if (ret->device < -1)
		return ret->device;
	for (size_t i = 0; i < SNAPSHOT_SLOTS; i++) {
		ret->manifests[i] = duplicate(s->manifests[i].fd);
		/* Then its name has to do. */
		if (ret->manifests[i] < -1)
			ret->manifests[i] = -1;
	}
	return 0;
}
