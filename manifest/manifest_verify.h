/*
 * Whether the entries of a manifest agree with each other and with its header: what the builder
 * guarantees and a file from elsewhere may not keep.
 */
#pragma once

#include "manifest/manifest.h"

/* Reads every entry twice. -EIO with what is wrong. */
int manifest_verify_entries(struct manifest *m, struct error *err);
