/*
 * What is made from the command table (command.h): the overview, man pages, bash completion.
 */
#pragma once

#include <stdio.h>

#include "common/error.h"

/* 0 or -EIO. */
int generate_overview(FILE *out);
int generate_completion(FILE *out);
/* One page a command plus granary.1, in `dir`. */
int generate_man_pages(const char *dir, struct error *err);
