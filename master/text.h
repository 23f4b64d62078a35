/* Text that came over the wire and goes into replies: bounded, and valid in a proto3 string. */
#pragma once

#include <stddef.h>

/* Copies what fits of src; control characters and what is not UTF-8 become '?'. */
void text_copy_printable(char *dst, size_t room, const char *src);
