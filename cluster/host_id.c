#include "cluster/host_id.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

int host_id_get(char ret_text[static HOST_ID_TEXT_BYTES], struct error *err)
{
	cleanup_fd int fd = open(BOOT_ID_PATH, O_RDONLY | O_CLOEXEC);
	char text[HOST_ID_TEXT_BYTES] = "";
	ssize_t n;

	if (fd < 0)
		return error_set_errno(
			err, -EIO, "cannot tell this host from others: %s", BOOT_ID_PATH);
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return error_set_errno(
			err, -EIO, "cannot tell this host from others: %s", BOOT_ID_PATH);
	text[strcspn(text, "\n")] = '\0';
	if (!text[0])
		return error_set(
			err, -EIO, "cannot tell this host from others: %s is empty", BOOT_ID_PATH);
	memcpy(ret_text, text, sizeof(text));
	return 0;
}
