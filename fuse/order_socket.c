#define LOG_SUBSYSTEM "order"
#include "fuse/order_socket.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/unix_socket.h"
#include "fuse/order_proto.h"
#include "fuse/thread.h"

#define TICK_MS 1000
#define REFUSED_MS 60000
#define ACCEPT_PAUSE_MS 200
#define ROOM_MS 50	 /* how often somebody who waits for room is looked after */
#define TURN_FRAMES 16	 /* of one connection before the others get their turn */
#define BATCH_RANGES 128 /* added under one lock */
#define FILE_RANGES_MAX 32
#define PAGE_BYTES ((uint64_t)4096)

struct client {
	int fd;		 /* -1: free */
	unsigned number; /* among the clients */
	unsigned char frame[ORDER_FRAME_HEAD_BYTES + ORDER_FRAME_MAX_BYTES];
	uint32_t filled, at; /* bytes that came; of the payload, that were used */
	bool stalled;	     /* the batch waits for room */

	uint64_t list; /* 0: none was begun */
	bool tied, adding;
	struct manifest *manifest;
	struct order_range batch[BATCH_RANGES];
	unsigned batched;
	uint64_t accepted, unknown;
	char first_unknown[ORDER_TEXT_MAX_BYTES];
	/* the file of the record before, in the same frame */
	uint32_t index;
	uint64_t size;
};

struct order_socket {
	struct order *order;
	struct loader_pace *loaders;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	bool group;
	int lock_fd, listen_fd, wake_fd;
	atomic_bool stopping;
	pthread_t thread;
	/* owned by the thread */
	struct client *clients[ORDER_CLIENTS_MAX];
	int64_t refused_ms;
	int64_t accept_ms; /* no accept before: there was no descriptor for one */
};

/* ---- answers --------------------------------------------------------------------------------- */

/* Whoever does not read his answers is disconnected. */
static int answer(struct client *c, enum order_frame kind, const void *payload, size_t len)
{
	unsigned char frame[ORDER_FRAME_HEAD_BYTES + ORDER_TEXT_MAX_BYTES + 64];
	unsigned char *at = order_put32(frame, kind);
	ssize_t n;

	assert(len <= sizeof(frame) - ORDER_FRAME_HEAD_BYTES);
	at = order_put32(at, (uint32_t)len);
	memcpy(at, payload, len);
	n = send(c->fd, frame, ORDER_FRAME_HEAD_BYTES + len, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n == (ssize_t)(ORDER_FRAME_HEAD_BYTES + len) ? 0 : -EPIPE;
}

/* Tells the client why; the connection ends with the code. */
static int refuse(struct client *c, int code, const char *text)
{
	unsigned char payload[4 + ORDER_TEXT_MAX_BYTES];
	unsigned char *at = order_put32(payload, (uint32_t)-code);
	size_t len = strnlen(text, ORDER_TEXT_MAX_BYTES);

	memcpy(at, text, len);
	answer(c, ORDER_FAILED, payload, 4 + len);
	return code;
}

static int refuse_error(struct client *c, int r)
{
	switch (r) {
	case -EBUSY:
		return refuse(c, r, "too many orders are announced already");
	case -ENOENT:
		return refuse(c, r,
			"the list is gone: the mount shows another snapshot, or it "
			"was dropped");
	case -ESHUTDOWN:
		return refuse(c, r, "the mount is stopping");
	default:
		return refuse(c, r, strerror(-r));
	}
}

/* ---- a list ---------------------------------------------------------------------------------- */

static void forget_list(struct order_socket *s, struct client *c)
{
	if (c->list && (c->tied || c->adding))
		order_drop(s->order, c->list);
	c->list = 0;
	c->adding = false;
	c->manifest = manifest_unref(c->manifest);
}

static int on_begin(struct order_socket *s, struct client *c, const unsigned char *p, uint32_t len)
{
	unsigned char reply[16], *at = reply;
	int r;

	if (len != ORDER_BEGIN_BYTES || order_get32(p + 4) & ~ORDER_TIED)
		return refuse(c, -EPROTO, "a begin that makes no sense");
	if (order_get32(p) != ORDER_PROTO_VERSION)
		return refuse(c, -EPROTO, "this mount speaks version 1 of the protocol");
	forget_list(s, c);
	if (order_get64(p + 8))
		order_drop(s->order, order_get64(p + 8));
	r = order_begin(s->order, &c->list, &c->manifest);
	if (r < 0) {
		c->list = 0;
		return refuse_error(c, r);
	}
	c->tied = order_get32(p + 4) & ORDER_TIED;
	c->adding = true;
	c->accepted = c->unknown = 0;
	c->first_unknown[0] = '\0';
	at = order_put64(at, c->list);
	order_put64(at, manifest_info(c->manifest)->snapshot);
	return answer(c, ORDER_BEGUN, reply, sizeof(reply));
}

/* 0 also when it has to wait: then `stalled`. */
static int flush(struct order_socket *s, struct client *c)
{
	int r = c->batched ? order_add(s->order, c->list, c->batch, c->batched) : 0;

	c->stalled = r == -EAGAIN;
	if (c->stalled)
		return 0;
	c->batched = 0;
	return r < 0 ? refuse_error(c, r) : 0;
}

static void note_unknown(struct client *c, const char *path, size_t len)
{
	if (c->unknown++ == 0)
		snprintf(c->first_unknown, sizeof(c->first_unknown), "%.*s", (int)len, path);
}

/* A file of the snapshot, by a path below the mount point, with or without slashes around it. */
static bool find_file(struct client *c, const char *path, size_t len)
{
	struct manifest_entry e;

	while (len > 0 && path[0] == '/') {
		path++;
		len--;
	}
	if (len == 0 || manifest_lookup_path(c->manifest, path, len, &c->index) < 0 ||
		manifest_entry(c->manifest, c->index, &e) < 0 || e.type != MANIFEST_FILE)
		return false;
	c->size = e.size;
	return true;
}

static void put_range(struct client *c, struct order_range range)
{
	assert(c->batched < BATCH_RANGES);
	c->batch[c->batched++] = range;
}

/* The kernel reads whole pages. What lies beyond the first 64 GiB is left to the reader. */
static void add_range(struct client *c, uint64_t offset, uint64_t bytes)
{
	uint64_t at = offset - offset % PAGE_BYTES, end = c->size;

	if (bytes > 0 && offset < c->size && bytes < c->size - offset)
		end = (offset + bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	if (end > c->size)
		end = c->size;
	for (unsigned i = 0; at < end; i++) {
		uint64_t len = end - at < ORDER_RANGE_MAX_BYTES ? end - at : ORDER_RANGE_MAX_BYTES;
		bool last = at + len == end || i + 1 == FILE_RANGES_MAX;

		put_range(c, (struct order_range){.index = c->index,
				     .len = (uint32_t)len,
				     .offset = at,
				     .ends = last});
		at += len;
		if (last)
			return;
	}
	put_range(c, (struct order_range){.index = ORDER_NOTHING, .ends = 1});
}

static void add_entry(
	struct client *c, bool found, uint64_t offset, uint64_t bytes, const char *path, size_t len)
{
	if (found && offset <= c->size) {
		c->accepted++;
		add_range(c, offset, bytes);
		return;
	}
	note_unknown(c, path, len);
	put_range(c, (struct order_range){.index = ORDER_NOTHING, .ends = 1});
}

/* From c->at on; what is left when there is no room is taken up again later. */
static int on_entries(struct order_socket *s, struct client *c, bool records,
	const unsigned char *p, uint32_t len)
{
	uint32_t head = records ? 18 : 2;

	if (!c->adding)
		return refuse(c, -EPROTO, "entries without a begin");
	if (c->at == 0)
		c->index = ORDER_NOTHING;
	while (c->at < len) {
		const unsigned char *e = p + c->at;
		uint32_t path_len;
		bool found;
		int r = 0;

		if (c->batched > BATCH_RANGES - FILE_RANGES_MAX)
			r = flush(s, c);
		if (r < 0 || c->stalled)
			return r;
		if (len - c->at < head ||
			(path_len = order_get16(e + head - 2)) > len - c->at - head)
			return refuse(c, -EPROTO, "an entry that does not fit its frame");
		if (path_len > 0 || !records)
			found = find_file(c, (const char *)e + head, path_len);
		else
			found = c->index != ORDER_NOTHING;
		if (!found)
			c->index = ORDER_NOTHING;
		add_entry(c, found, records ? order_get64(e) : 0, records ? order_get64(e + 8) : 0,
			(const char *)e + head, path_len);
		c->at += head + path_len;
	}
	return flush(s, c);
}

static int on_end(struct order_socket *s, struct client *c)
{
	unsigned char reply[16 + ORDER_TEXT_MAX_BYTES], *at = reply;
	size_t len = strlen(c->first_unknown);

	if (!c->adding)
		return refuse(c, -EPROTO, "an end without a begin");
	order_seal(s->order, c->list);
	c->adding = false;
	at = order_put64(at, c->accepted);
	at = order_put64(at, c->unknown);
	memcpy(at, c->first_unknown, len);
	return answer(c, ORDER_ENDED, reply, 16 + len);
}

/* ---- what is not about adding ---------------------------------------------------------------- */

static int on_step(struct order_socket *s, struct client *c, const unsigned char *p, uint32_t len)
{
	if (len != ORDER_STEP_BYTES)
		return refuse(c, -EPROTO, "a step that makes no sense");
	/* A list that is gone is no fault of whoever reports. */
	order_step(s->order, order_get64(p), order_get64(p + 8), order_get64(p + 16));
	return 0;
}

static int on_status(struct order_socket *s, struct client *c, const unsigned char *p, uint32_t len)
{
	unsigned char reply[8 * ORDER_STATE_FIELDS], *at = reply;
	struct order_stat st;

	if (len != ORDER_ID_BYTES)
		return refuse(c, -EPROTO, "a question that makes no sense");
	order_stat(s->order, order_get64(p), &st);
	at = order_put64(at, st.lists);
	at = order_put64(at, st.announced);
	at = order_put64(at, st.passed);
	at = order_put64(at, st.step);
	at = order_put64(at, st.tally.announced);
	at = order_put64(at, st.tally.fetched_bytes);
	at = order_put64(at, st.tally.used_bytes);
	at = order_put64(at, st.tally.dropped_bytes);
	order_put64(at, st.in_flight_limit);
	return answer(c, ORDER_STATE, reply, sizeof(reply));
}

static int on_drop(struct order_socket *s, struct client *c, const unsigned char *p, uint32_t len)
{
	if (len != ORDER_ID_BYTES)
		return refuse(c, -EPROTO, "a drop that makes no sense");
	order_drop(s->order, order_get64(p));
	return 0;
}

static int on_pace(struct order_socket *s, struct client *c, const unsigned char *p, uint32_t len)
{
	struct loader_report report;

	if (len != ORDER_PACE_BYTES)
		return refuse(c, -EPROTO, "a pace that makes no sense");
	report = (struct loader_report){
		.steps = order_get64(p),
		.samples = order_get64(p + 8),
		.bytes = order_get64(p + 16),
		.waited_us = order_get64(p + 24),
		.computed_us = order_get64(p + 32),
		.workers = order_get32(p + 40),
	};
	if (loader_pace_report(s->loaders, c->number, &report, clock_mono_ms()) < 0)
		return refuse(c, -EPROTO, "a pace whose numbers went back");
	return 0;
}

static int on_frame(struct order_socket *s, struct client *c)
{
	const unsigned char *p = c->frame + ORDER_FRAME_HEAD_BYTES;
	uint32_t len = order_get32(c->frame + 4);

	switch (order_get32(c->frame)) {
	case ORDER_BEGIN:
		return on_begin(s, c, p, len);
	case ORDER_PATHS:
		return on_entries(s, c, false, p, len);
	case ORDER_RECORDS:
		return on_entries(s, c, true, p, len);
	case ORDER_END:
		return on_end(s, c);
	case ORDER_STEP:
		return on_step(s, c, p, len);
	case ORDER_STATUS:
		return on_status(s, c, p, len);
	case ORDER_DROP:
		return on_drop(s, c, p, len);
	case ORDER_PACE:
		return on_pace(s, c, p, len);
	default:
		return refuse(c, -EPROTO, "an unknown kind of frame");
	}
}

/* ---- connections ----------------------------------------------------------------------------- */

static void client_close(struct order_socket *s, unsigned i)
{
	struct client *c = s->clients[i];

	forget_list(s, c);
	loader_pace_forget(s->loaders, i);
	close(c->fd);
	free(c);
	s->clients[i] = NULL;
}

/* 1 when a whole frame is there. */
static int receive(struct client *c)
{
	uint32_t want = ORDER_FRAME_HEAD_BYTES;

	for (;;) {
		ssize_t n;

		if (c->filled >= ORDER_FRAME_HEAD_BYTES) {
			uint32_t len = order_get32(c->frame + 4);

			if (len > ORDER_FRAME_MAX_BYTES)
				return refuse(c, -EPROTO, "a frame of more than 64 KiB");
			want = ORDER_FRAME_HEAD_BYTES + len;
		}
		if (c->filled >= want)
			return 1;
		n = recv(c->fd, c->frame + c->filled, want - c->filled, MSG_DONTWAIT);
		if (n == 0)
			return -EPIPE;
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		c->filled += (uint32_t)n;
	}
}

/* Negative: the connection ends. */
static int serve(struct order_socket *s, struct client *c)
{
	for (int i = 0; i < TURN_FRAMES; i++) {
		int r = receive(c);

		if (r > 0)
			r = on_frame(s, c);
		else
			return r;
		if (r < 0 || c->stalled)
			return r;
		c->filled = c->at = 0;
	}
	return 0;
}

/* Whoever is turned away may come again and again. */
static void warn_refused(struct order_socket *s, const char *what)
{
	if (!clock_passed(s->refused_ms + REFUSED_MS))
		return;
	log_warn("%s: %s", s->path, what);
	s->refused_ms = clock_mono_ms();
}

static void accept_client(struct order_socket *s)
{
	cleanup_fd int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	unsigned i = 0;

	if (fd < 0) {
		/* It stays in the queue and would wake us at once. */
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			s->accept_ms = clock_deadline_ms(ACCEPT_PAUSE_MS);
		return;
	}
	if (!s->group && !unix_socket_peer_is_ours(fd)) {
		warn_refused(s, "a process of another user was turned away");
		return;
	}
	while (i < ORDER_CLIENTS_MAX && s->clients[i])
		i++;
	if (i == ORDER_CLIENTS_MAX) {
		warn_refused(s, "there are as many connections as may be: one more was turned "
				"away");
		return;
	}
	s->clients[i] = calloc(1, sizeof(struct client));
	if (!s->clients[i])
		return;
	s->clients[i]->fd = steal_fd(&fd);
	s->clients[i]->number = i;
}

static int fill_polls(struct order_socket *s, struct pollfd polls[ORDER_CLIENTS_MAX + 2])
{
	int timeout_ms = TICK_MS;

	polls[0] = (struct pollfd){.fd = s->wake_fd, .events = POLLIN};
	polls[1] = (struct pollfd){
		.fd = s->listen_fd, .events = clock_passed(s->accept_ms) ? POLLIN : 0};
	for (unsigned i = 0; i < ORDER_CLIENTS_MAX; i++) {
		struct client *c = s->clients[i];

		polls[i + 2] = (struct pollfd){
			.fd = c ? c->fd : -1, .events = c && c->stalled ? 0 : POLLIN};
		if (c && c->stalled)
			timeout_ms = ROOM_MS;
	}
	return timeout_ms;
}

static void *socket_main(void *arg)
{
	struct order_socket *s = arg;
	struct pollfd polls[ORDER_CLIENTS_MAX + 2];
	int64_t ticked_ms = clock_mono_ms();

	while (!atomic_load(&s->stopping)) {
		if (poll(polls, ORDER_CLIENTS_MAX + 2, fill_polls(s, polls)) < 0 && errno != EINTR)
			log_warn("%s: %s", s->path, strerror(errno));
		if (clock_passed(ticked_ms + TICK_MS)) {
			order_tick(s->order);
			ticked_ms = clock_mono_ms();
		}
		for (unsigned i = 0; i < ORDER_CLIENTS_MAX; i++) {
			struct client *c = s->clients[i];

			if (!c || !(polls[i + 2].revents || c->stalled))
				continue;
			if ((polls[i + 2].revents & POLLHUP && c->stalled) || serve(s, c) < 0)
				client_close(s, i);
		}
		if (polls[1].revents)
			accept_client(s);
	}
	for (unsigned i = 0; i < ORDER_CLIENTS_MAX; i++) {
		if (s->clients[i])
			client_close(s, i);
	}
	return NULL;
}

/* ---- start and stop -------------------------------------------------------------------------- */

static int listen_at(struct order_socket *s, const char *group, struct error *err)
{
	int r = unix_socket_claim(s->path, &s->lock_fd, err);

	if (r == 0)
		r = unix_socket_listen(s->path, &s->listen_fd, err);
	if (r == 0 && group)
		r = unix_socket_admit(s->path, group, err);
	if (r == 0 && (s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
		r = error_set_errno(err, -errno, "cannot make an eventfd");
	return r;
}

static void socket_free(struct order_socket *s)
{
	if (s->listen_fd >= 0) {
		close(s->listen_fd);
		unlink(s->path);
	}
	if (s->lock_fd >= 0)
		unix_socket_release(s->path, s->lock_fd);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	free(s);
}

static_assert(LOADERS_MAX == ORDER_CLIENTS_MAX, "a loader for each connection");

int order_socket_start(struct order *order, struct loader_pace *loaders, const char *dir,
	const char *mountpoint, const char *group, struct order_socket **ret, struct error *err)
{
	struct order_socket *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->order = order;
	s->loaders = loaders;
	s->group = group != NULL;
	s->lock_fd = s->listen_fd = s->wake_fd = -1;
	/* The name is the same after a crash, so that a stale socket is found. */
	if (snprintf(s->path, sizeof(s->path), "%s/order-%016" PRIx64 ".sock", dir,
		    (uint64_t)XXH3_64bits(mountpoint, strlen(mountpoint))) >= (int)sizeof(s->path))
		r = error_set(err, -ENAMETOOLONG, "%s is too long for a socket's name", dir);
	else
		r = listen_at(s, group, err);
	if (r == 0) {
		r = thread_start(&s->thread, socket_main, s);
		if (r < 0)
			error_set_errno(err, r, "cannot start a thread");
	}
	if (r < 0) {
		socket_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

const char *order_socket_path(const struct order_socket *s)
{
	return s->path;
}

void order_socket_stop(struct order_socket *s)
{
	uint64_t one = 1;

	if (!s)
		return;
	atomic_store(&s->stopping, true);
	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		log_debug("%s: awake already", s->path);
	pthread_join(s->thread, NULL);
	socket_free(s);
}
