#include "common/sigbus.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The handler reads slots without a lock: `begin` is published last and withdrawn first, and the
 * handler reads it twice, so that it never pairs one range's begin with another's end. */
struct slot {
	_Atomic uintptr_t begin; /* 0: free */
	_Atomic uintptr_t end;
	_Atomic(sigbus_fault_fn *) fn;
	_Atomic(void *) arg;
};

static struct slot slots[SIGBUS_RANGES_MAX];
static _Atomic uintptr_t page_bytes;
static struct sigaction previous;

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;

static void act_by_default(int sig, const siginfo_t *info)
{
	/* A fault comes again when this returns, and ends the process at the right instruction; a
	 * signal that somebody sent has to be sent anew. */
	signal(sig, SIG_DFL);
	if (info->si_code <= 0)
		raise(sig);
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	/* A handler that was put in our place, passed on to us, and became the previous one when we
	 * were installed again must not send us round in a circle. */
	static _Thread_local volatile sig_atomic_t passing;

	if (passing || (previous.sa_handler == SIG_DFL && !(previous.sa_flags & SA_SIGINFO)) ||
		(previous.sa_handler == SIG_IGN && info->si_code > 0)) {
		act_by_default(sig, info);
		return;
	}
	if (previous.sa_handler == SIG_IGN)
		return;
	passing = 1;
	if (previous.sa_flags & SA_SIGINFO)
		previous.sa_sigaction(sig, info, context);
	else
		previous.sa_handler(sig);
	passing = 0;
}

static bool cover_with_zeros(uintptr_t addr)
{
	uintptr_t page = addr & ~(page_bytes - 1);

	/* The bare system call: sanitizers wrap mmap with code that a handler must not run. */
	return syscall(SYS_mmap, page, page_bytes, PROT_READ,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (long)page;
}

static bool recover(uintptr_t addr)
{
	for (size_t i = 0; i < SIGBUS_RANGES_MAX; i++) {
		uintptr_t begin = atomic_load(&slots[i].begin);
		uintptr_t end = atomic_load(&slots[i].end);
		sigbus_fault_fn *fn = atomic_load(&slots[i].fn);
		void *arg = atomic_load(&slots[i].arg);

		if (!begin || addr < begin || addr >= end || atomic_load(&slots[i].begin) != begin)
			continue;
		fn(arg, (addr & ~(page_bytes - 1)) - begin);
		return cover_with_zeros(addr);
	}
	return false;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	if (info->si_code <= 0 || !recover((uintptr_t)info->si_addr))
		pass_on(sig, info, context);
	errno = saved;
}

/* At every guard anew: a library may have put its own handler in our place. */
static int install_locked(struct error *err)
{
	struct sigaction act = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	struct sigaction current;

	page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
	sigemptyset(&act.sa_mask);
	if (sigaction(SIGBUS, NULL, &current) < 0)
		return error_set_errno(err, -errno, "cannot handle SIGBUS");
	if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_sigbus)
		return 0;
	previous = current;
	if (sigaction(SIGBUS, &act, NULL) < 0)
		return error_set_errno(err, -errno, "cannot handle SIGBUS");
	return 0;
}

static int claim_locked(uintptr_t begin, uintptr_t end, sigbus_fault_fn *fn, void *arg)
{
	for (int i = 0; i < SIGBUS_RANGES_MAX; i++) {
		if (atomic_load(&slots[i].begin))
			continue;
		atomic_store(&slots[i].end, end);
		atomic_store(&slots[i].fn, fn);
		atomic_store(&slots[i].arg, arg);
		atomic_store(&slots[i].begin, begin);
		return i;
	}
	return -ENOSPC;
}

int sigbus_guard(const void *base, size_t len, sigbus_fault_fn *fn, void *arg, struct error *err)
{
	uintptr_t begin = (uintptr_t)base;
	int r;

	assert(begin && len && fn);
	pthread_mutex_lock(&mu);
	r = install_locked(err);
	if (r == 0) {
		r = claim_locked(begin, begin + len, fn, arg);
		if (r < 0)
			error_set(
				err, r, "more than %d files are mapped at once", SIGBUS_RANGES_MAX);
	}
	pthread_mutex_unlock(&mu);
	return r;
}

void sigbus_unguard(int slot)
{
	assert(slot >= 0 && slot < SIGBUS_RANGES_MAX);
	pthread_mutex_lock(&mu);
	assert(atomic_load(&slots[slot].begin));
	atomic_store(&slots[slot].begin, 0);
	pthread_mutex_unlock(&mu);
}
