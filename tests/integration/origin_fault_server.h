/*
 * A web server that misbehaves on purpose, on a thread of the test: what a real one cannot be made
 * to show. It knows one object, fault_object of FAULT_BYTES with the etag "good", under names that
 * say how its answers go wrong.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "tests/integration/origin_process.h"

#define FAULT_BYTES 200000
#define FAULT_REQUEST_BYTES 16384

struct fault_server {
	int fd, port;
	pthread_t thread;
	atomic_bool stop;
	atomic_uint requests;
	unsigned char object[FAULT_BYTES];
	char last_request[FAULT_REQUEST_BYTES]; /* read when the server is stopped or idle */
	pthread_mutex_t mu;
};

/* Does the request of this name, being the nth for it, get this part of the answer's head? Writes
 * the whole answer to `fd`. */
typedef void fault_answer_fn(struct fault_server *s, int fd, const char *request, unsigned nth);

static inline void fault_send(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		at += n;
		len -= (size_t)n;
	}
}

static inline void fault_text(int fd, const char *fmt, ...)
{
	char text[4096];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fault_send(fd, text, (size_t)n);
}

/* The range of a request, the whole object without one. True when there was a Range. */
static inline bool fault_range(const char *request, unsigned *first, unsigned *last)
{
	const char *range = strstr(request, "Range: bytes=");

	*first = 0;
	*last = FAULT_BYTES - 1;
	return range && sscanf(range, "Range: bytes=%u-%u", first, last) == 2;
}

struct fault_loop {
	struct fault_server *s;
	fault_answer_fn *answer;
};

/* The whole request, its body included, is in `request`. */
static inline bool fault_complete(const char *request, size_t len)
{
	const char *end = strstr(request, "\r\n\r\n");
	const char *length = strcasestr(request, "\r\nContent-Length: ");
	size_t body = length ? strtoul(length + 18, NULL, 10) : 0;

	return end && (size_t)(end + 4 - request) + body <= len;
}

static inline void fault_serve_one(struct fault_loop *l, int fd)
{
	char request[FAULT_REQUEST_BYTES];
	size_t len = 0;

	while (len + 1 < sizeof(request)) {
		ssize_t n = recv(fd, request + len, sizeof(request) - 1 - len, 0);

		if (n <= 0)
			return;
		len += (size_t)n;
		request[len] = '\0';
		if (fault_complete(request, len))
			break;
	}
	pthread_mutex_lock(&l->s->mu);
	memcpy(l->s->last_request, request, len + 1);
	pthread_mutex_unlock(&l->s->mu);
	l->answer(l->s, fd, request, atomic_fetch_add(&l->s->requests, 1));
}

static inline void *fault_loop(void *arg)
{
	struct fault_loop *l = arg;

	while (!atomic_load(&l->s->stop)) {
		int fd = accept(l->s->fd, NULL, NULL);

		if (fd < 0)
			break;
		fault_serve_one(l, fd);
		close(fd);
	}
	free(l);
	return NULL;
}

static inline struct fault_server *fault_server_start(fault_answer_fn *answer)
{
	struct fault_server *s = calloc(1, sizeof(*s));
	struct fault_loop *l = calloc(1, sizeof(*l));

	for (size_t i = 0; i < FAULT_BYTES; i++)
		s->object[i] = (unsigned char)(i * 40503u >> 7);
	pthread_mutex_init(&s->mu, NULL);
	s->fd = loopback_socket(0, true);
	s->port = port_of(s->fd);
	*l = (struct fault_loop){s, answer};
	if (s->fd < 0 || pthread_create(&s->thread, NULL, fault_loop, l) != 0)
		abort();
	return s;
}

static inline void fault_server_stop(struct fault_server *s)
{
	atomic_store(&s->stop, true);
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
	pthread_mutex_destroy(&s->mu);
	free(s);
}
