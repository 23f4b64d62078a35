#include "master/filter.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#define PARTS_MAX 256 /* components of a pattern or a path; manifest_path_check allows as many */
#define PATH_ROOM 4096

struct pattern {
	char *text; /* components, each NUL-terminated */
	const char *parts[PARTS_MAX];
	size_t count;
	bool dir_only;
};

struct filter {
	struct pattern *include, *exclude;
	size_t includes, excludes;
};

/* Splits in place; the count, or -1 when there are too many or an empty one. */
static int split(char *text, const char *parts[static PARTS_MAX])
{
	size_t count = 0;

	for (;;) {
		char *slash = strchr(text, '/');

		if (slash)
			*slash = '\0';
		if (!*text || count == PARTS_MAX)
			return -1;
		parts[count++] = text;
		if (!slash)
			return (int)count;
		text = slash + 1;
	}
}

static bool is_any_depth(const char *part)
{
	return strcmp(part, "**") == 0;
}

static int pattern_init(struct pattern *p, const char *text, struct error *err)
{
	size_t len = strlen(text);
	bool anywhere;
	char *start;
	int count;

	if (len == 0 || len > FILTER_PATTERN_MAX_BYTES)
		return error_set(err, -EINVAL, "a pattern must have 1 to %d bytes, '%.40s' has %zu",
			FILTER_PATTERN_MAX_BYTES, text, len);
	p->text = malloc(len + 4);
	if (!p->text)
		return error_set(err, -ENOMEM, "no memory for the patterns");
	p->dir_only = text[len - 1] == '/';
	if (p->dir_only)
		len--;
	anywhere = !memchr(text, '/', len);
	start = stpcpy(p->text, anywhere ? "**/" : "");
	memcpy(start, text, len);
	start[len] = '\0';
	count = split(p->text + (p->text[0] == '/'), p->parts);
	if (count < 0)
		return error_set(err, -EINVAL,
			"the pattern '%.200s' has an empty component: write it like "
			"'train/*.jpg'",
			text);
	p->count = (size_t)count;
	/* What a pattern matches it takes whole, so a "**" at the end stands for "one or more". */
	if (is_any_depth(p->parts[p->count - 1])) {
		if (p->count == PARTS_MAX)
			return error_set(err, -EINVAL, "the pattern '%.200s' is too deep", text);
		p->parts[p->count - 1] = "**";
		p->parts[p->count++] = "*";
	}
	return 0;
}

static int patterns_new(char *const *texts, size_t count, struct pattern **ret, struct error *err)
{
	if (count > FILTER_PATTERNS_MAX)
		return error_set(err, -EINVAL, "%zu patterns are too many, %d are possible", count,
			FILTER_PATTERNS_MAX);
	*ret = calloc(count + 1, sizeof(**ret));
	if (!*ret)
		return error_set(err, -ENOMEM, "no memory for the patterns");
	for (size_t i = 0; i < count; i++) {
		int r = pattern_init(&(*ret)[i], texts[i], err);

		if (r < 0)
			return r;
	}
	return 0;
}

int filter_new(char *const *include, size_t includes, char *const *exclude, size_t excludes,
	struct filter **ret, struct error *err)
{
	struct filter *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return error_set(err, -ENOMEM, "no memory for the patterns");
	f->includes = includes;
	f->excludes = excludes;
	r = patterns_new(include, includes, &f->include, err);
	if (r == 0)
		r = patterns_new(exclude, excludes, &f->exclude, err);
	if (r < 0) {
		filter_free(f);
		return r;
	}
	*ret = f;
	return 0;
}

static void patterns_free(struct pattern *patterns, size_t count)
{
	for (size_t i = 0; patterns && i < count && i < FILTER_PATTERNS_MAX; i++)
		free(patterns[i].text);
	free(patterns);
}

void filter_free(struct filter *f)
{
	if (!f)
		return;
	patterns_free(f->include, f->includes);
	patterns_free(f->exclude, f->excludes);
	free(f);
}

bool filter_empty(const struct filter *f)
{
	return f->includes == 0 && f->excludes == 0;
}

/*
 * Whether all of the pattern matches the path's first components, as many as it takes. Globbing
 * with one point to go back to: on a mismatch the latest "**" swallows one component more, which is
 * enough since an earlier one could not do better.
 */
static bool pattern_matches(const struct pattern *p, const char *const *parts, size_t count)
{
	size_t at = 0, in_path = 0, back_at = 0, back_path = 0;
	bool can_go_back = false;

	if (p->dir_only)
		count--; /* the last component is the file itself */
	while (at < p->count) {
		if (is_any_depth(p->parts[at])) {
			back_at = ++at;
			back_path = in_path;
			can_go_back = true;
			continue;
		}
		if (in_path == count)
			return false;
		if (fnmatch(p->parts[at], parts[in_path], 0) == 0) {
			at++;
			in_path++;
			continue;
		}
		if (!can_go_back)
			return false;
		at = back_at;
		in_path = ++back_path;
	}
	return true;
}

static bool any_matches(const struct pattern *patterns, size_t patterns_count,
	const char *const *parts, size_t count)
{
	for (size_t i = 0; i < patterns_count; i++)
		if (pattern_matches(&patterns[i], parts, count))
			return true;
	return false;
}

bool filter_keeps(const struct filter *f, const char *path, size_t len)
{
	const char *parts[PARTS_MAX];
	char room[PATH_ROOM];
	int count;

	if (filter_empty(f))
		return true;
	if (len >= sizeof(room))
		return false;
	memcpy(room, path, len);
	room[len] = '\0';
	count = split(room, parts);
	if (count < 0)
		return false;
	if (f->includes > 0 && !any_matches(f->include, f->includes, parts, (size_t)count))
		return false;
	return !any_matches(f->exclude, f->excludes, parts, (size_t)count);
}
