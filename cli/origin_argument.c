#include "cli/origin_argument.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

int origin_argument(const char *text, char **ret_url, struct error *err)
{
	cleanup_buf struct buf url = BUF_INIT;
	char real[PATH_MAX];
	int r;

	if (strstr(text, "://")) {
		r = buf_append_str(&url, text);
	} else if (realpath(text, real)) {
		r = buf_append_str(&url, "file://");
		/* '%' is the one byte that such a URL gives a meaning to. */
		for (const char *p = real; *p && r == 0; p++)
			r = *p == '%' ? buf_append_str(&url, "%25") : buf_append(&url, p, 1);
	} else {
		return error_set(err, -ENOENT,
			"'%s' is neither a URL (s3://, http://, https://, file://) nor a "
			"directory",
			text);
	}
	if (r < 0)
		return error_set(err, r, "out of memory");
	*ret_url = buf_take(&url);
	return 0;
}
