/*
 * The limit that the cold path is measured against: N processes that do nothing but GET over one kept
 * connection each. Reads requests from stdin, one a line: a URL, and maybe a blank and a range of its
 * bytes (0-1048575). Process i takes every Nth.
 *
 * With FILE each range is written where it belongs, as a downloader does.
 *
 *	raw_http CONNECTIONS [FILE] < requests	prints {"files": ..., "bytes": ..., "failed": ..., "seconds": ...}
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#define CONNECTIONS_MAX 256
#define REQUESTS_MAX 1000000
#define REQUEST_BYTES 2048

struct tally {
	_Atomic uint64_t files, bytes, failed;
};

struct sink {
	struct tally *tally;
	int fd; /* -1: bytes are dropped */
	off_t offset;
};

static size_t take(char *data, size_t size, size_t count, void *arg)
{
	struct sink *s = arg;

	if (s->fd >= 0 && pwrite(s->fd, data, size * count, s->offset) != (ssize_t)(size * count))
		return 0;
	s->offset += (off_t)(size * count);
	atomic_fetch_add(&s->tally->bytes, size * count);
	return size * count;
}

static void get_all(
	char *const *requests, size_t count, size_t first, size_t step, struct sink *sink)
{
	CURL *curl = curl_easy_init();

	if (!curl)
		_exit(1);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, sink);
	curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
	curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
	for (size_t i = first; i < count; i += step) {
		char *url = requests[i], *range = strchr(url, ' ');

		if (range)
			*range++ = '\0';
		sink->offset = range ? strtoll(range, NULL, 10) : 0;
		curl_easy_setopt(curl, CURLOPT_URL, url);
		curl_easy_setopt(curl, CURLOPT_RANGE, range);
		if (curl_easy_perform(curl) == CURLE_OK)
			atomic_fetch_add(&sink->tally->files, 1);
		else
			atomic_fetch_add(&sink->tally->failed, 1);
	}
	curl_easy_cleanup(curl);
	_exit(0);
}

static size_t read_requests(char **requests)
{
	char line[REQUEST_BYTES];
	size_t count = 0;

	while (count < REQUESTS_MAX && fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		requests[count] = strdup(line);
		if (!requests[count])
			exit(1);
		count++;
	}
	return count;
}

int main(int argc, char **argv)
{
	long connections = argc == 2 || argc == 3 ? strtol(argv[1], NULL, 10) : 0;
	struct tally *tally = mmap(
		NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char **requests = calloc(REQUESTS_MAX, sizeof(char *));
	struct sink sink = {.tally = tally, .fd = -1};
	int64_t started_ns;
	size_t count;

	if (connections < 1 || connections > CONNECTIONS_MAX) {
		fprintf(stderr, "usage: raw_http CONNECTIONS [FILE] < requests\n");
		return 2;
	}
	if (!requests || tally == MAP_FAILED)
		return 1;
	if (argc == 3)
		sink.fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (argc == 3 && sink.fd < 0) {
		fprintf(stderr, "raw_http: cannot write to %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	count = read_requests(requests);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	started_ns = clock_mono_ns();
	for (long i = 0; i < connections; i++) {
		if (fork() == 0)
			get_all(requests, count, (size_t)i, (size_t)connections, &sink);
	}
	while (wait(NULL) > 0)
		;
	printf("{\"files\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"failed\": %" PRIu64
	       ", \"seconds\": %.6f}\n",
		atomic_load(&tally->files), atomic_load(&tally->bytes), atomic_load(&tally->failed),
		(double)(clock_mono_ns() - started_ns) / 1e9);
	return 0;
}
