/*
 * The last resort: reading the origin past every worker, when none answers. Nothing is cached and
 * nothing is shared, so it is for getting through, not for speed.
 *
 * The origin is opened at the first such read, with the options of the plan, the secrets that the
 * master told (to mounts on its host only), and for the rest what the environment of this process
 * says.
 *
 * Where its origin is limited the mount has a rate for such reads (direct_pace.h). They come in
 * pieces then, are slow, and never fail for it: neither what they wait nor what their earlier
 * pieces took counts towards the deadline.
 *
 * Threading: any thread.
 */
#pragma once

#include "common/error.h"
#include "common/sync.h"
#include "fuse/block_source.h"
#include "fuse/direct_pace.h"
#include "granary/v1/dataset.pb-c.h"
#include "origin/origin.h"

struct origin_holder;

struct origin_link {
	struct direct_pace pace; /* of all reads together; without a limit at first */
	struct mutex mu;
	/* guarded by mu */
	char *url;
	struct origin_options *options;
	char *said;		      /* url and options as last told, to see a change */
	struct origin_holder *holder; /* NULL: not opened yet */
};

void origin_link_init(struct origin_link *l);
void origin_link_deinit(struct origin_link *l);

/* What the plan says; remembered for the next read. -EINVAL, -ENOMEM leave it as it was. */
int origin_link_configure(struct origin_link *l, const char *url,
	Granary__V1__Option *const *options, size_t options_count,
	Granary__V1__Option *const *secrets, size_t secrets_count, struct error *err);

/* As block_source's read; the deadline is as it was before anything was waited. */
int origin_link_read(struct origin_link *l, const struct block_range *range, int64_t deadline_ms,
	struct read_cancel *cancel, struct error *err);
