/*
 * The proxies of an origin: one for http, one for https, and the hosts that are reached without
 * them. Their URLs may hold a password: nothing but proxies_note is fit to be shown.
 *
 * Made from the options once, not changed afterwards, shared by references from any thread.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "origin/origin.h"

struct proxies;

/* -EINVAL for what is no URL of a proxy, with a text that names the option but not its value. */
int proxies_new(const struct origin_options *opts, struct proxies **ret, struct error *err);
struct proxies *proxies_ref(struct proxies *p);
void proxies_unref(struct proxies *p);

/* For libcurl; NULL where the options say nothing. */
const char *proxies_url(const struct proxies *p, bool https);
const char *proxies_exceptions(const struct proxies *p);
/* For errors: " (proxy http://host:3128)", or "" where there is none. The host asked for may be one
 * of the exceptions: libcurl decides that, and does not tell. */
const char *proxies_note(const struct proxies *p, bool https);
