#include <errno.h>
#include <string.h>

#include "fuse/mount.h"

int mount_mode_parse(const char *text, enum mount_mode *ret)
{
	if (!*text || !strcmp(text, "auto"))
		*ret = MOUNT_MODE_AUTO;
	else if (!strcmp(text, "no-open"))
		*ret = MOUNT_MODE_NO_OPEN;
	else if (!strcmp(text, "open"))
		*ret = MOUNT_MODE_OPEN;
	else
		return -EINVAL;
	return 0;
}
