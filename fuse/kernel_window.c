#define LOG_SUBSYSTEM "fuse"
#include "fuse/kernel_window.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "common/log.h"

void kernel_window_init(struct kernel_window *w)
{
	*w = (struct kernel_window){.kb = 0};
	mutex_init(&w->mu);
}

void kernel_window_deinit(struct kernel_window *w)
{
	mutex_deinit(&w->mu);
}

static void set(struct kernel_window *w, int kb)
{
	FILE *f;
	mutex_guard(&w->mu);

	if (w->kb == kb)
		return;
	w->kb = kb;
	f = fopen(w->path, "we");
	if (!f)
		return;
	fprintf(f, "%d\n", kb);
	if (fclose(f) != 0)
		log_debug("%s: %s", w->path, strerror(errno));
}

void kernel_window_start(struct kernel_window *w, dev_t dev, bool small_files)
{
	w->narrow_kb = small_files ? KERNEL_WINDOW_SMALL_FILES_KB : KERNEL_WINDOW_LARGE_FILES_KB;
	snprintf(w->path, sizeof(w->path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev),
		minor(dev));
	set(w, w->narrow_kb);
}

void kernel_window_file(struct kernel_window *w, bool whole)
{
	if (w->path[0])
		set(w, whole ? KERNEL_WINDOW_WHOLE_FILES_KB : w->narrow_kb);
}
