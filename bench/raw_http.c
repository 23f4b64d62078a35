/*
 * The limit that the cold path is measured against: N processes that do nothing but GET over one kept
 * connection each. Reads URLs from stdin, one a line; process i takes every Nth.
 *
 *	raw_http CONNECTIONS < urls	prints {"files": ..., "bytes": ..., "failed": ..., "seconds": ...}
 */
#include <curl/curl.h>
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
#define URLS_MAX 1000000
#define URL_BYTES 2048

struct tally {
	_Atomic uint64_t files, bytes, failed;
};

static size_t drop(char *data, size_t size, size_t count, void *arg)
{
	(void)data;
	atomic_fetch_add((_Atomic uint64_t *)arg, size * count);
	return size * count;
}

static void get_all(char *const *urls, size_t count, size_t first, size_t step, struct tally *tally)
{
	CURL *curl = curl_easy_init();

	if (!curl)
		_exit(1);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &tally->bytes);
	curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
	curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
	for (size_t i = first; i < count; i += step) {
		curl_easy_setopt(curl, CURLOPT_URL, urls[i]);
		if (curl_easy_perform(curl) == CURLE_OK)
			atomic_fetch_add(&tally->files, 1);
		else
			atomic_fetch_add(&tally->failed, 1);
	}
	curl_easy_cleanup(curl);
	_exit(0);
}

static size_t read_urls(char **urls)
{
	char line[URL_BYTES];
	size_t count = 0;

	while (count < URLS_MAX && fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		urls[count] = strdup(line);
		if (!urls[count])
			exit(1);
		count++;
	}
	return count;
}

int main(int argc, char **argv)
{
	long connections = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
	struct tally *tally = mmap(
		NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char **urls = calloc(URLS_MAX, sizeof(char *));
	int64_t started_ns;
	size_t count;

	if (connections < 1 || connections > CONNECTIONS_MAX) {
		fprintf(stderr, "usage: raw_http CONNECTIONS < urls\n");
		return 2;
	}
	if (!urls || tally == MAP_FAILED)
		return 1;
	count = read_urls(urls);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	started_ns = clock_mono_ns();
	for (long i = 0; i < connections; i++) {
		if (fork() == 0)
			get_all(urls, count, (size_t)i, (size_t)connections, tally);
	}
	while (wait(NULL) > 0)
		;
	printf("{\"files\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"failed\": %" PRIu64
	       ", \"seconds\": %.6f}\n",
		atomic_load(&tally->files), atomic_load(&tally->bytes), atomic_load(&tally->failed),
		(double)(clock_mono_ns() - started_ns) / 1e9);
	return 0;
}
