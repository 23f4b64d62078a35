#include "fuse/mount_state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "fuse/mount.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int map(int fd, struct mount_state **ret, struct error *err)
{
	void *at = mmap(NULL, sizeof(**ret), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return error_set_errno(err, -errno, "cannot map the mount's state");
	*ret = at;
	return 0;
}

int mount_state_new(struct mount_state **ret, int *ret_fd, struct error *err)
{
	cleanup_fd int fd = memfd_create("granary-mount", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0 || ftruncate(fd, sizeof(**ret)) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return error_set_errno(err, -errno, "cannot make the mount's state");
	r = map(fd, ret, err);
	if (r < 0)
		return r;
	(*ret)->magic = MOUNT_STATE_MAGIC;
	(*ret)->version = MOUNT_STATE_VERSION;
	(*ret)->struct_bytes = (uint32_t)sizeof(**ret);
	*ret_fd = steal_fd(&fd);
	return 0;
}

int mount_state_check(const struct mount_state *s, struct error *err)
{
	if (s->magic != MOUNT_STATE_MAGIC)
		return error_set(err, -EPROTO, "that is no state of a mount");
	if (s->version != MOUNT_STATE_VERSION || s->struct_bytes != sizeof(*s))
		return error_set(err, -EPROTO,
			"the mount's state is of version %u, this granary knows version %u: unmount "
			"and mount again to change to it",
			s->version, MOUNT_STATE_VERSION);
	if (s->settings_bytes > sizeof(s->settings) || s->init_bytes > sizeof(s->init) ||
		s->mode > MOUNT_MODE_OPEN || !memchr(s->mountpoint, '\0', sizeof(s->mountpoint)))
		return error_set(err, -EPROTO, "the mount's state is damaged");
	return 0;
}

int mount_state_map(int fd, struct mount_state **ret, struct error *err)
{
	struct mount_state *s = NULL;
	struct stat st;
	int seals, r;

	/* Of another size, or of one that may change, a look at it could be a SIGBUS. */
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0)
		return error_set(err, -EPROTO, "that is no state of a mount");
	if (st.st_size != (off_t)sizeof(*s))
		return error_set(err, -EPROTO,
			"the mount's state is of another version: unmount and mount again to change "
			"to this granary");
	r = map(fd, &s, err);
	if (r < 0)
		return r;
	r = mount_state_check(s, err);
	if (r < 0) {
		mount_state_unmap(s);
		return r;
	}
	*ret = s;
	return 0;
}

void mount_state_unmap(struct mount_state *s)
{
	if (s)
		munmap(s, sizeof(*s));
}

/* ---- snapshots ------------------------------------------------------------------------------- */

void mount_state_show(struct mount_state *s, uint32_t number, const char *digest)
{
	struct mount_state_slot *slot = &s->slots[number % SNAPSHOT_SLOTS];

	/* The slot may be the place of one that is still asked for until `current` says otherwise: it
	 * is nobody's while it is written. */
	atomic_store(&slot->number_plus_1, 0);
	memset(slot->digest, 0, sizeof(slot->digest));
	memcpy(slot->digest, digest, strnlen(digest, sizeof(slot->digest) - 1));
	atomic_store(&slot->number_plus_1, number + 1);
	atomic_store(&s->current, number);
}

bool mount_state_shown(
	const struct mount_state *s, uint32_t number, char ret_digest[MANIFEST_DIGEST_TEXT_BYTES])
{
	const struct mount_state_slot *slot = &s->slots[number % SNAPSHOT_SLOTS];
	uint32_t current = atomic_load(&s->current);

	if (number > current || current - number >= SNAPSHOT_SLOTS ||
		atomic_load(&slot->number_plus_1) != number + 1)
		return false;
	memcpy(ret_digest, slot->digest, MANIFEST_DIGEST_TEXT_BYTES);
	ret_digest[MANIFEST_DIGEST_TEXT_BYTES - 1] = '\0';
	return true;
}

/* ---- the plan -------------------------------------------------------------------------------- */

int mount_state_plan_set(struct mount_state *s, const void *packed, size_t bytes)
{
	uint32_t at = atomic_load(&s->plan_at) == 1 ? 2 : 1;
	struct mount_state_plan *p = &s->plans[at - 1];

	if (bytes > sizeof(p->packed))
		return -EMSGSIZE;
	p->bytes = bytes;
	memcpy(p->packed, packed, bytes);
	atomic_store(&s->plan_at, at);
	return 0;
}

const void *mount_state_plan_get(const struct mount_state *s, size_t *ret_bytes)
{
	uint32_t at = atomic_load(&s->plan_at);

	if (at < 1 || at > 2 || s->plans[at - 1].bytes > MOUNT_STATE_PLAN_BYTES)
		return NULL;
	*ret_bytes = s->plans[at - 1].bytes;
	return s->plans[at - 1].packed;
}
