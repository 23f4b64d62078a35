#include "origin/proxies.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "origin/options.h"

struct proxy {
	char *url;  /* NULL: none */
	char *note; /* NULL: none */
};

struct proxies {
	atomic_uint refs;
	/* constant */
	struct proxy http, https;
	char *exceptions;
};

static bool is_spoken(const char *scheme)
{
	static const char *const schemes[] = {
		"http", "https", "socks4", "socks4a", "socks5", "socks5h"};

	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		if (strcasecmp(scheme, schemes[i]) == 0)
			return true;
	}
	return false;
}

/* "scheme://host:port" without user and password. */
static int write_note(struct proxy *p)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *host = NULL, *port = NULL;
	int r = -EINVAL;

	if (u &&
		curl_url_set(u, CURLUPART_URL, p->url,
			CURLU_NON_SUPPORT_SCHEME | CURLU_GUESS_SCHEME) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && is_spoken(scheme)) {
		/* Without a scheme it is an http proxy, whatever its host is called. */
		curl_url_get(u, CURLUPART_PORT, &port, 0);
		r = asprintf(&p->note, " (proxy %s://%s%s%s)",
			    strstr(p->url, "://") ? scheme : "http", host, port ? ":" : "",
			    port ? port : "") < 0
			    ? -ENOMEM
			    : 0;
		if (r < 0)
			p->note = NULL;
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(u);
	return r;
}

static int take(
	struct proxy *p, const struct origin_options *opts, const char *key, struct error *err)
{
	const char *url = origin_options_get(opts, key);
	int r;

	if (!url || !*url)
		return 0;
	p->url = strdup(url);
	r = p->url ? write_note(p) : -ENOMEM;
	if (r == -EINVAL)
		return error_set(err, r,
			"option %s (or the environment's variable of that name) is no URL of a "
			"proxy: give http://host:port",
			key);
	return r < 0 ? error_set(err, r, "option %s: out of memory", key) : 0;
}

int proxies_new(const struct origin_options *opts, struct proxies **ret, struct error *err)
{
	const char *exceptions = origin_options_get(opts, "no-proxy");
	struct proxies *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return error_set(err, -ENOMEM, "proxies: out of memory");
	atomic_init(&p->refs, 1);
	r = take(&p->http, opts, "http-proxy", err);
	if (r == 0)
		r = take(&p->https, opts, "https-proxy", err);
	if (r == 0 && exceptions) {
		p->exceptions = strdup(exceptions);
		if (!p->exceptions)
			r = error_set(err, -ENOMEM, "option no-proxy: out of memory");
	}
	if (r == 0)
		*ret = p;
	else
		proxies_unref(p);
	return r;
}

struct proxies *proxies_ref(struct proxies *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void proxies_unref(struct proxies *p)
{
	if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1)
		return;
	origin_secret_free(p->http.url);
	origin_secret_free(p->https.url);
	free(p->http.note);
	free(p->https.note);
	free(p->exceptions);
	free(p);
}

const char *proxies_url(const struct proxies *p, bool https)
{
	return https ? p->https.url : p->http.url;
}

const char *proxies_exceptions(const struct proxies *p)
{
	return p->exceptions;
}

const char *proxies_note(const struct proxies *p, bool https)
{
	const char *note = https ? p->https.note : p->http.note;

	return note ? note : "";
}
