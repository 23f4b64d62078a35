/*
 * Whether a sparse file and its sidecar hold all of an object. The file is one that does not change
 * (store_hold, HOLD_WHOLE), so what was found stays true.
 */
#pragma once

#include "store/store_view.h"

/* As store_whole_verify; data and sidecar. */
int whole_verify(const int fds[2], const struct store_whole_check *check, uint64_t *ret_block);
