#include "master/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the UTF-8 sequence at s, of which `left` are there; 0: it is none. */
static size_t sequence_bytes(const unsigned char *s, size_t left)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = s[0] < 0x80       ? 1
		     : s[0] >> 5 == 6  ? 2
		     : s[0] >> 4 == 14 ? 3
		     : s[0] >> 3 == 30 ? 4
				       : 0;
	uint32_t code;

	if (len <= 1)
		return len;
	if (len > left)
		return 0;
	code = s[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if (s[i] >> 6 != 2)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (code < smallest[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return len;
}

void text_copy_printable(char *dst, size_t room, const char *src)
{
	size_t left = strlen(src), at = 0;

	while (left > 0) {
		size_t len = sequence_bytes((const unsigned char *)src, left);
		bool odd = len == 0 || (len == 1 && ((unsigned char)*src < ' ' || *src == 0x7f));

		if (at + (odd ? 1 : len) >= room)
			break;
		if (odd) {
			dst[at++] = '?';
			len = 1;
		} else {
			memcpy(dst + at, src, len);
			at += len;
		}
		src += len;
		left -= len;
	}
	dst[at] = '\0';
}
