#include "manifest/manifest_builder.h"
#include "manifest/manifest_format.h"

#include <stdbool.h>

static size_t path_depth(const char *path, size_t len)
{
	size_t depth = 0;

	for (const char *end = path + len; (path = memchr(path, '/', (size_t)(end - path))); path++)
		depth++;
	return depth;
}

int manifest_path_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t a_depth = path_depth(a, a_len), b_depth = path_depth(b, b_len);
	size_t shorter = a_len < b_len ? a_len : b_len, i = 0;

	if (a_depth != b_depth)
		return a_depth < b_depth ? -1 : 1;
	/* Neighbours share most of a long path: skip that by words. */
	while (i + sizeof(uint64_t) <= shorter && memcmp(a + i, b + i, sizeof(uint64_t)) == 0)
		i += sizeof(uint64_t);
	for (; i < shorter; i++) {
		unsigned char x = (unsigned char)a[i], y = (unsigned char)b[i];

		if (x == y)
			continue;
		/* '/' ends a name, so it stands below every byte that may continue one. */
		if (x == '/' || y == '/')
			return x == '/' ? -1 : 1;
		return x < y ? -1 : 1;
	}
	return a_len == b_len ? 0 : a_len < b_len ? -1 : 1;
}

static bool is_dots(const char *name, size_t len)
{
	return (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.');
}

enum manifest_path_flaw manifest_path_check(const char *path, size_t len)
{
	size_t levels = 0;

	if (len == 0)
		return MANIFEST_PATH_EMPTY;
	if (path[0] == '/')
		return MANIFEST_PATH_ABSOLUTE;
	if (len > MANIFEST_PATH_MAX_BYTES)
		return MANIFEST_PATH_LONG;
	if (memchr(path, '\0', len))
		return MANIFEST_PATH_NUL;
	for (size_t at = 0; at <= len;) {
		const char *slash = memchr(path + at, '/', len - at);
		size_t name_len = slash ? (size_t)(slash - path) - at : len - at;

		if (name_len == 0)
			return MANIFEST_PATH_EMPTY;
		if (name_len > MANIFEST_NAME_MAX_BYTES)
			return MANIFEST_PATH_LONG;
		if (is_dots(path + at, name_len))
			return MANIFEST_PATH_DOTS;
		if (++levels > MANIFEST_DEPTH_MAX)
			return MANIFEST_PATH_DEEP;
		at += name_len + 1;
	}
	return MANIFEST_PATH_OK;
}

const char *manifest_path_flaw_text(enum manifest_path_flaw flaw)
{
	switch (flaw) {
	case MANIFEST_PATH_OK:
		return "fine";
	case MANIFEST_PATH_EMPTY:
		return "an empty name";
	case MANIFEST_PATH_ABSOLUTE:
		return "an absolute path";
	case MANIFEST_PATH_DOTS:
		return "a component '.' or '..'";
	case MANIFEST_PATH_NUL:
		return "a NUL in the name";
	case MANIFEST_PATH_LONG:
		return "a name over 255 or a path over 4095 bytes";
	case MANIFEST_PATH_DEEP:
		return "more than 255 levels";
	}
	return "unknown";
}
