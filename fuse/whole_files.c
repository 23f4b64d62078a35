#include "fuse/whole_files.h"

#include <string.h>

void whole_files_init(struct whole_files *w)
{
	memset(w, 0, sizeof(*w));
	mutex_init(&w->mu);
}

void whole_files_deinit(struct whole_files *w)
{
	mutex_deinit(&w->mu);
}

static unsigned seen_locked(const struct whole_files *w)
{
	return w->begun < WHOLE_FILES_SEEN ? w->begun : WHOLE_FILES_SEEN;
}

bool whole_files_begin(struct whole_files *w, uint64_t ino)
{
	struct whole_file *f;
	bool whole;

	mutex_guard(&w->mu);
	whole = w->ended >= WHOLE_FILES_FEW && 2 * w->ended >= seen_locked(w);
	f = &w->seen[w->begun++ % WHOLE_FILES_SEEN];
	w->ended -= f->ended;
	*f = (struct whole_file){.ino = ino};
	return whole;
}

void whole_files_end(struct whole_files *w, uint64_t ino)
{
	mutex_guard(&w->mu);
	for (unsigned i = 0; i < seen_locked(w); i++) {
		struct whole_file *f = &w->seen[i];

		if (f->ino != ino || f->ended)
			continue;
		f->ended = true;
		w->ended++;
		return;
	}
}
