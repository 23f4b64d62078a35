/*
 * A view: the reader of another process's store. One thread keeps the connection (lease_proto.h),
 * takes what comes over it, and closes what is idle; reads go by the session, which is a directory
 * and the descriptors opened under it. A new connection makes a new session; the old one goes when
 * its last read has ended.
 */
#include "store/store_view.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <utlist.h>

#include "common/cleanup.h"
#include "common/sync.h"
#include "store/lease_proto.h"
#include "store/reader.h"
#include "store/whole.h"

#define LOG_SUBSYSTEM "store-view"
#include "common/log.h"

#define FILES_DEFAULT 256
#define RECONNECT_MS 1000
#define REPLY_MS 1000
#define IDLE_CLOSE_MS 10000
#define TOUCH_FLUSH_MS 100
#define WHOLE_SAMPLES 16

/* A thread that waits for OPENED. */
struct open_request {
	uint32_t file;
	enum hold_kind hold;
	bool done;
	int status;
	int fds[2];
	uint32_t generation;
	struct open_request *next;
};

struct session {
	struct store_view *view;
	uint64_t number; /* of the view's sessions */
	_Atomic unsigned refs;
	struct directory *directory;
	struct fd_cache files;
	struct reader reader;
	int sock; /* open as long as the session is; closed by its last user */
	/* guarded by the view's mu */
	bool connected;
	struct open_request *requests;
};

struct store_view {
	struct sockaddr_un addr;
	unsigned max_files;
	pthread_t thread;
	int wake_fd;

	struct mutex mu;
	struct cond opened;
	/* guarded by mu */
	bool stopping;
	struct session *session; /* NULL until the first connection */
	uint64_t sessions;
	struct store_whole *wholes;
	struct lease_message touches;
};

struct store_whole {
	struct store_view *view;
	uint64_t session; /* its number: a hold ends with the session that has it */
	struct store_whole_key key;
	int fds[2]; /* -1 when given up */
	atomic_bool wanted_back;
	struct store_whole *prev, *next; /* guarded by the view's mu */
};

/* ---- sessions ---- */

static void disconnect_locked(struct session *n)
{
	if (!n->connected)
		return;
	n->connected = false;
	shutdown(n->sock, SHUT_RDWR); /* wakes the thread */
	for (struct open_request *q = n->requests; q; q = q->next) {
		q->done = true;
		q->status = -ENOTCONN;
	}
	n->requests = NULL;
	cond_broadcast(&n->view->opened);
}

static int send_locked(struct session *n, const struct lease_message *m)
{
	int r;

	if (!n->connected)
		return -ENOTCONN;
	r = lease_send(n->sock, m, NULL, 0);
	/* A lost message would leave the two ends with different beliefs about what is held. */
	if (r < 0)
		disconnect_locked(n);
	return r;
}

static void take_request_locked(struct session *n, struct open_request *q)
{
	struct open_request **at = &n->requests;

	while (*at && *at != q)
		at = &(*at)->next;
	if (*at)
		*at = q->next;
}

/* Asks the owner for a file; waits for at most REPLY_MS. */
static int ask_for_file(struct session *n, struct open_request *q)
{
	struct store_view *v = n->view;
	struct lease_message m = {.magic = LEASE_MAGIC,
		.kind = LEASE_OPEN,
		.file = q->file,
		.hold = (uint32_t)q->hold};
	struct open_request **at = &n->requests;
	int64_t deadline = clock_deadline_ms(REPLY_MS);
	int r;

	mutex_guard(&v->mu);
	r = send_locked(n, &m);
	if (r < 0)
		return r;
	while (*at)
		at = &(*at)->next;
	*at = q;
	while (!q->done) {
		if (cond_wait(&v->opened, &v->mu, deadline) == -ETIMEDOUT && !q->done) {
			/* An answer that still comes finds nobody, and is given back. */
			take_request_locked(n, q);
			return -ETIMEDOUT;
		}
	}
	return q->status;
}

static int files_open(void *ctx, uint32_t number, bool sparse, int fds[2])
{
	struct open_request q = {
		.file = number, .hold = sparse ? HOLD_SPARSE : HOLD_SEGMENT, .fds = {-1, -1}};
	int r = ask_for_file(ctx, &q);

	fds[0] = q.fds[0];
	fds[1] = q.fds[1];
	return r;
}

static void release(struct session *n, uint32_t number)
{
	struct lease_message m = {.magic = LEASE_MAGIC, .kind = LEASE_RELEASE, .file = number};

	mutex_guard(&n->view->mu);
	send_locked(n, &m);
}

static void files_close(void *ctx, uint32_t number, bool sparse, int fds[2])
{
	close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
	if (sparse)
		release(ctx, number);
}

static const struct fd_cache_ops session_fd_ops = {.open = files_open, .close = files_close};

static ssize_t plain_preadv(void *ctx, int fd, const struct iovec *iov, int count, uint64_t offset)
{
	ssize_t n;

	(void)ctx;
	do {
		n = preadv(fd, iov, count, (off_t)offset);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static struct session *session_new(
	struct store_view *v, int sock, int directory_fd, struct error *err)
{
	struct session *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	if (directory_map(directory_fd, &n->directory, err) < 0) {
		free(n);
		return NULL;
	}
	n->view = v;
	n->refs = 1;
	n->sock = sock;
	n->connected = true;
	fd_cache_init(&n->files, v->max_files, &session_fd_ops, n);
	n->reader = (struct reader){
		.directory = n->directory, .files = &n->files, .preadv = plain_preadv};
	return n;
}

static void session_unref(struct session *n)
{
	if (!n || atomic_fetch_sub(&n->refs, 1) != 1)
		return;
	mutex_lock(&n->view->mu);
	disconnect_locked(n);
	mutex_unlock(&n->view->mu);
	fd_cache_deinit(&n->files);
	directory_free(n->directory);
	close(n->sock);
	free(n);
}

static struct session *session_ref(struct store_view *v)
{
	mutex_guard(&v->mu);
	if (v->session)
		atomic_fetch_add(&v->session->refs, 1);
	return v->session;
}

/* ---- the connection ---- */

/* HELLO and WELCOME on a new socket; the directory's descriptor. */
static int greet(int sock)
{
	struct lease_message m = {.magic = LEASE_MAGIC, .kind = LEASE_HELLO, .file = LEASE_VERSION};
	struct pollfd p = {.fd = sock, .events = POLLIN};
	int fds[2], r;

	r = lease_send(sock, &m, NULL, 0);
	if (r < 0)
		return r;
	if (poll(&p, 1, REPLY_MS) <= 0)
		return -ETIMEDOUT;
	r = lease_receive(sock, &m, fds);
	if (r < 0)
		return r;
	if (fds[1] >= 0)
		close(fds[1]);
	if (m.kind == LEASE_WELCOME && m.file == LEASE_VERSION && fds[0] >= 0)
		return fds[0];
	if (fds[0] >= 0)
		close(fds[0]);
	return -EPROTO;
}

static void connect_now(struct store_view *v)
{
	cleanup_fd int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cleanup_fd int directory = -1;
	struct error err = ERROR_INIT;
	struct session *n, *old;
	struct store_whole *w;

	if (sock < 0 || connect(sock, (struct sockaddr *)&v->addr, sizeof(v->addr)) < 0)
		return;
	directory = greet(sock);
	if (directory < 0) {
		log_debug("%s: %s", v->addr.sun_path, strerror(-directory));
		return;
	}
	n = session_new(v, sock, directory, &err);
	if (!n) {
		log_warn("%s: %s", v->addr.sun_path, err.text);
		return;
	}
	steal_fd(&sock);
	mutex_lock(&v->mu);
	old = v->session;
	v->session = n;
	n->number = ++v->sessions;
	/* Their owner is gone. Nothing that they name changes, but nobody counts on them any more. */
	DL_FOREACH (v->wholes, w)
		atomic_store(&w->wanted_back, true);
	mutex_unlock(&v->mu);
	session_unref(old);
}

static void on_opened(struct session *n, const struct lease_message *m, int fds[2])
{
	struct open_request *q;
	bool sparse = m->hold != HOLD_SEGMENT;
	bool valid = m->status < 0 || (fds[0] >= 0 && (fds[1] >= 0 || !sparse));

	mutex_lock(&n->view->mu);
	for (q = n->requests; q && (q->file != m->file || q->hold != m->hold); q = q->next)
		;
	if (q && valid) {
		take_request_locked(n, q);
		q->done = true;
		q->status = m->status < 0 ? m->status : 0;
		q->fds[0] = fds[0];
		q->fds[1] = fds[1];
		q->generation = m->generation;
		fds[0] = fds[1] = -1;
		cond_broadcast(&n->view->opened);
	}
	mutex_unlock(&n->view->mu);
	if (!q && m->status >= 0 && sparse)
		release(n, m->file);
}

static void want_back(struct session *n, uint32_t file)
{
	struct store_whole *w;

	fd_cache_drop(&n->files, file);
	mutex_guard(&n->view->mu);
	DL_FOREACH (n->view->wholes, w) {
		if (w->session == n->number && w->key.file == file)
			atomic_store(&w->wanted_back, true);
	}
}

static int receive_one(struct session *n)
{
	struct lease_message m;
	int fds[2], r;

	r = lease_receive(n->sock, &m, fds);
	if (r < 0)
		return r;
	if (m.kind == LEASE_OPENED)
		on_opened(n, &m, fds);
	else if (m.kind == LEASE_REVOKE)
		want_back(n, m.file);
	for (int i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	return 0;
}

/* Everything that has come; notices the end. */
static void receive_all(struct store_view *v, struct session *n)
{
	int r;

	do {
		r = receive_one(n);
	} while (r == 0);
	if (r == -EAGAIN)
		return;
	mutex_guard(&v->mu);
	disconnect_locked(n);
}

/* How many there were. */
static uint32_t flush_touches(struct store_view *v)
{
	uint32_t count;

	mutex_guard(&v->mu);
	count = v->touches.count;
	if (count && v->session)
		send_locked(v->session, &v->touches);
	v->touches.count = 0;
	return count;
}

static bool wait_for_news(struct store_view *v, struct session *n, int timeout_ms)
{
	struct pollfd polls[2] = {
		{.fd = v->wake_fd, .events = POLLIN},
		{.fd = -1, .events = POLLIN},
	};
	uint64_t ignored;

	mutex_lock(&v->mu);
	if (n && n->connected)
		polls[1].fd = n->sock;
	mutex_unlock(&v->mu);
	if (poll(polls, 2, timeout_ms) > 0 && polls[0].revents &&
		read(v->wake_fd, &ignored, sizeof(ignored)) < 0)
		log_debug("woken for nothing");
	mutex_guard(&v->mu);
	return !v->stopping;
}

static void wake(struct store_view *v)
{
	uint64_t one = 1;

	if (write(v->wake_fd, &one, sizeof(one)) < 0)
		log_debug("already awake");
}

static void *view_main(void *arg)
{
	struct store_view *v = arg;
	int64_t tried_ms = clock_mono_ms(), swept_ms = tried_ms;
	uint32_t touches = 0;
	bool go_on = true;

	pthread_setname_np(pthread_self(), "store-view");
	while (go_on) {
		struct session *n = session_ref(v);

		go_on = wait_for_news(v, n, touches ? TOUCH_FLUSH_MS : RECONNECT_MS);
		if (n)
			receive_all(v, n);
		touches = flush_touches(v);
		if (n && clock_passed(swept_ms + RECONNECT_MS)) {
			fd_cache_close_idle(&n->files, clock_mono_ms() - IDLE_CLOSE_MS);
			swept_ms = clock_mono_ms();
		}
		session_unref(n);
		if (go_on && !store_view_connected(v) && clock_passed(tried_ms + RECONNECT_MS)) {
			connect_now(v);
			tried_ms = clock_mono_ms();
		}
	}
	return NULL;
}

/* ---- the interface ---- */

int store_view_new(
	const struct store_view_options *opts, struct store_view **ret, struct error *err)
{
	struct store_view *v;
	int r;

	if (strlen(opts->socket_path) >= sizeof(v->addr.sun_path))
		return error_set(err, -ENAMETOOLONG, "%s is too long for a socket's name",
			opts->socket_path);
	v = calloc(1, sizeof(*v));
	if (!v)
		return error_set(err, -ENOMEM, "out of memory");
	v->addr.sun_family = AF_UNIX;
	strcpy(v->addr.sun_path, opts->socket_path);
	v->max_files = fd_cache_room(opts->max_files ? opts->max_files : FILES_DEFAULT);
	v->touches.magic = LEASE_MAGIC;
	v->touches.kind = LEASE_TOUCH;
	mutex_init(&v->mu);
	cond_init(&v->opened);
	v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = v->wake_fd < 0 ? -errno : 0;
	if (r == 0) {
		connect_now(v);
		r = -pthread_create(&v->thread, NULL, view_main, v);
	}
	if (r < 0) {
		session_unref(v->session);
		if (v->wake_fd >= 0)
			close(v->wake_fd);
		free(v);
		return error_set_errno(err, r, "cannot start the view of the local worker's store");
	}
	*ret = v;
	return 0;
}

void store_view_free(struct store_view *v)
{
	if (!v)
		return;
	mutex_lock(&v->mu);
	v->stopping = true;
	mutex_unlock(&v->mu);
	wake(v);
	pthread_join(v->thread, NULL);
	session_unref(v->session);
	close(v->wake_fd);
	cond_deinit(&v->opened);
	mutex_deinit(&v->mu);
	free(v);
}

static void report_corrupt(struct session *n, const struct directory_entry *e)
{
	struct lease_message m = {.magic = LEASE_MAGIC,
		.kind = LEASE_CORRUPT,
		.slot = e->slot,
		.seq = e->seq,
		.count = 1};

	m.ids[0] = e->id;
	mutex_guard(&n->view->mu);
	send_locked(n, &m);
}

/* When there are too many to tell between two rounds of the thread, the rest goes untold: recency
 * is coarse anyway. */
static void note_touch(struct store_view *v, const struct block_id *id)
{
	const struct block_id *last;

	mutex_guard(&v->mu);
	/* A block is read in many parts. */
	last = v->touches.count ? &v->touches.ids[v->touches.count - 1] : NULL;
	if (last && last->hi == id->hi && last->lo == id->lo)
		return;
	if (v->touches.count < LEASE_IDS_MAX)
		v->touches.ids[v->touches.count++] = *id;
	if (v->touches.count == LEASE_IDS_MAX / 2)
		wake(v);
}

int store_view_read(struct store_view *v, const struct store_block *b, uint32_t offset,
	uint32_t len, void *dst, size_t room)
{
	struct session *n = session_ref(v);
	struct directory_entry e;
	int r;

	if (!n)
		return STORE_MISS;
	r = reader_read(&n->reader, b, offset, len, &(struct reader_target){dst, room}, &e);
	if (r == READER_DAMAGED) {
		report_corrupt(n, &e);
		r = STORE_MISS;
	} else if (r == 0 && entry_class(&e) == CLASS_ELASTIC) {
		note_touch(v, &b->id);
	}
	session_unref(n);
	return r;
}

bool store_view_has(struct store_view *v, const struct block_id *id)
{
	struct session *n = session_ref(v);
	struct directory_entry e;
	bool there = n && directory_lookup(n->directory, id, &e);

	session_unref(n);
	return there;
}

bool store_view_connected(struct store_view *v)
{
	mutex_guard(&v->mu);
	return v->session && v->session->connected;
}

/* ---- whole files ---- */

/* Looks at a few blocks, so that a file of which only some are here is told without asking. */
static bool seems_whole(struct session *n, const struct object_id *object, uint64_t object_bytes,
	uint32_t *ret_file)
{
	uint64_t count = block_count(object_bytes);
	struct directory_entry e;

	for (uint64_t i = 0; i < WHOLE_SAMPLES; i++) {
		uint64_t index = i * (count - 1) / (WHOLE_SAMPLES - 1);
		struct block_id id = block_id_make(object, index);

		if (!directory_lookup(n->directory, &id, &e) || !(e.flags & FLAG_SPARSE))
			return false;
		if (i == 0)
			*ret_file = e.file;
		if (e.file != *ret_file)
			return false;
	}
	return true;
}

static int hold_whole(struct session *n, uint32_t file, struct store_whole **ret)
{
	struct open_request q = {.file = file, .hold = HOLD_WHOLE, .fds = {-1, -1}};
	struct store_whole *w = calloc(1, sizeof(*w));
	struct store_view *v = n->view;
	int r;

	if (!w)
		return STORE_MISS;
	r = ask_for_file(n, &q);
	if (r < 0) {
		free(w);
		return r == -EOPNOTSUPP ? r : STORE_MISS;
	}
	*w = (struct store_whole){.view = v,
		.session = n->number,
		.key = {directory_epoch(n->directory), file, q.generation},
		.fds = {q.fds[0], q.fds[1]}};
	mutex_guard(&v->mu);
	/* What another session has begun meanwhile has not been told to this one. */
	atomic_init(&w->wanted_back, v->session != n);
	DL_APPEND(v->wholes, w);
	*ret = w;
	return 0;
}

int store_view_whole(struct store_view *v, const struct object_id *object, uint64_t object_bytes,
	struct store_whole **ret)
{
	struct session *n = session_ref(v);
	uint32_t file = 0;
	int r = STORE_MISS;

	if (n && object_bytes > BLOCK_BYTES && seems_whole(n, object, object_bytes, &file))
		r = hold_whole(n, file, ret);
	session_unref(n);
	return r;
}

int store_whole_fd(const struct store_whole *w)
{
	return w->fds[0];
}

struct store_whole_key store_whole_key(const struct store_whole *w)
{
	return w->key;
}

bool store_whole_wanted_back(const struct store_whole *w)
{
	return atomic_load(&w->wanted_back);
}

int store_whole_verify(
	struct store_whole *w, const struct store_whole_check *check, uint64_t *ret_block)
{
	return whole_verify(w->fds, check, ret_block);
}

void store_whole_close_fds(struct store_whole *w)
{
	for (int i = 0; i < 2; i++) {
		if (w->fds[i] >= 0)
			close(w->fds[i]);
		w->fds[i] = -1;
	}
}

void store_whole_free(struct store_whole *w)
{
	struct lease_message m = {.magic = LEASE_MAGIC, .kind = LEASE_RELEASE};
	struct store_view *v;

	if (!w)
		return;
	v = w->view;
	store_whole_close_fds(w);
	m.file = w->key.file;
	{
		mutex_guard(&v->mu);
		DL_DELETE(v->wholes, w);
		if (v->session && v->session->number == w->session)
			send_locked(v->session, &m);
	}
	free(w);
}
