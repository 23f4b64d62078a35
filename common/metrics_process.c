#include "common/metrics_process.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/metrics.h"

enum { CPU_SECONDS, OPEN_FDS, MAX_FDS, RESIDENT_BYTES, START_SECONDS, THREADS };

static struct metric table[] = {
	[CPU_SECONDS] =
		METRIC_SECONDS_COUNTER("process_cpu_seconds_total", "CPU time of the process."),
	[OPEN_FDS] = METRIC_GAUGE("process_open_fds", "Open file descriptors."),
	[MAX_FDS] = METRIC_GAUGE("process_max_fds", "Limit of open file descriptors."),
	[RESIDENT_BYTES] = METRIC_GAUGE("process_resident_memory_bytes", "Resident memory."),
	[START_SECONDS] = METRIC_GAUGE(
		"process_start_time_seconds", "Start of the process in seconds since the epoch."),
	[THREADS] = METRIC_GAUGE("process_threads", "Threads of the process."),
};

static void set(int which, double value)
{
	metric_set(metric_only(&table[which]), value);
}

static void collect_rusage(void)
{
	struct rusage u;
	struct rlimit l;

	if (getrusage(RUSAGE_SELF, &u) == 0)
		set(CPU_SECONDS, (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
					 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
	if (getrlimit(RLIMIT_NOFILE, &l) == 0)
		set(MAX_FDS, (double)l.rlim_cur);
}

static void collect_fds(void)
{
	cleanup_dir DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;
	struct dirent *e;

	if (!d)
		return;
	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] != '.')
			n++;
	/* Less the one that counts. */
	set(OPEN_FDS, n > 0 ? n - 1 : 0);
}

/* When the machine was booted, in seconds since the epoch. */
static double boot_seconds(void)
{
	cleanup_file FILE *f = fopen("/proc/stat", "re");
	char line[256];
	double boot = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "btime %lf", &boot) == 1)
			break;
	return boot;
}

static void collect_stat(void)
{
	cleanup_file FILE *f = fopen("/proc/self/stat", "re");
	char line[1024];
	const char *p;
	long threads = 0, resident = 0;
	unsigned long long start = 0;

	if (!f || !fgets(line, sizeof(line), f))
		return;
	/* The name of the program may hold anything, also a parenthesis. */
	p = strrchr(line, ')');
	if (!p ||
		sscanf(p + 1,
			" %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld "
			"%*d %llu %*u %ld",
			&threads, &start, &resident) != 3)
		return;
	set(THREADS, (double)threads);
	set(RESIDENT_BYTES, (double)resident * (double)sysconf(_SC_PAGESIZE));
	set(START_SECONDS, boot_seconds() + (double)start / (double)sysconf(_SC_CLK_TCK));
}

static void collect(void *arg)
{
	(void)arg;
	collect_rusage();
	collect_fds();
	collect_stat();
}

static void register_once(void)
{
	metrics_register(table, sizeof(table) / sizeof(table[0]));
	/* Never removed: it is the process's own. */
	metrics_collect(collect, NULL);
}

void metrics_process_register(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, register_once);
}
