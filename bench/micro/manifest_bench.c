/*
 * What a manifest costs: `manifest_bench [THOUSANDS_OF_FILES [DIR]]` builds one, and times the
 * build, the open, the first touch of everything, and what the mount does all day.
 */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "placement/pin.h"
#include "placement/rendezvous.h"
#include "tests/unit/manifest_generate.h"

#define ROUNDS 1000000

static uint64_t random_state = 88172645463325252u;

static uint32_t random_below(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state % n);
}

static double since_s(int64_t begin_ns)
{
	return (double)(clock_mono_ns() - begin_ns) / 1e9;
}

static void report(const char *what, double count, double seconds)
{
	printf("%-34s %9.3f s %12.0f /s %9.0f ns\n", what, seconds, count / seconds,
		seconds / count * 1e9);
}

static void check(int r, const char *what, const struct error *err)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s (%d)\n", what, err ? err->text : "", r);
	exit(1);
}

static void bench_entries(struct manifest *m)
{
	uint64_t entries = manifest_info(m)->entries, sum = 0;
	int64_t begin = clock_mono_ns();
	struct manifest_entry e;

	for (uint32_t i = 0; i < entries; i++) {
		check(manifest_entry(m, i, &e), "entry", NULL);
		sum += e.size + e.name_len;
	}
	report("all entries in order", (double)entries, since_s(begin));
	begin = clock_mono_ns();
	for (int i = 0; i < ROUNDS; i++) {
		check(manifest_entry(m, random_below(entries), &e), "entry", NULL);
		sum += e.size;
	}
	report("random entry (getattr)", ROUNDS, since_s(begin));
	if (sum == 42)
		printf("\n");
}

static void bench_lookups(struct manifest *m, unsigned classes)
{
	uint64_t entries = manifest_info(m)->entries;
	struct buf path = BUF_INIT;
	int64_t begin = clock_mono_ns();
	double spent;
	uint32_t index;

	for (int i = 0; i < ROUNDS; i++) {
		char name[32];
		unsigned class = random_below(classes);
		int len = snprintf(name, sizeof(name), "n%08u_%05u.JPEG", class,
			random_below(GENERATE_IMAGES));

		check(manifest_lookup(m, 2 + class, name, (size_t)len, &index), "lookup", NULL);
	}
	report("random lookup in a directory", ROUNDS, since_s(begin));
	begin = clock_mono_ns();
	for (int i = 0; i < ROUNDS; i++) {
		buf_clear(&path);
		check(manifest_path(m, random_below(entries), &path), "path", NULL);
	}
	spent = since_s(begin);
	report("path of a random entry", ROUNDS, spent);
	begin = clock_mono_ns();
	for (int i = 0; i < ROUNDS; i++) {
		buf_clear(&path);
		check(manifest_path(m, random_below(entries), &path), "path", NULL);
		check(manifest_lookup_path(m, path.data, path.len, &index), "lookup", NULL);
	}
	report("lookup of a random path", ROUNDS, since_s(begin) - spent);
	buf_deinit(&path);
}

static void bench_placement(struct manifest *m)
{
	struct rendezvous_node nodes[16];
	struct object_id object = {.hi = 1, .lo = 2};
	uint64_t threshold, pinned, sum = 0;
	struct error err = ERROR_INIT;
	int64_t begin = clock_mono_ns();

	check(pin_threshold(m, manifest_info(m)->bytes / 2, &threshold, &pinned, &err), "pin",
		&err);
	report("pin_threshold, per block", (double)manifest_info(m)->blocks, since_s(begin));
	begin = clock_mono_ns();
	for (uint64_t i = 0; i < ROUNDS; i++) {
		struct block_id id = block_id_make(&object, i);

		sum += pin_holds(threshold, &id);
	}
	report("block id and pin", ROUNDS, since_s(begin));
	for (uint64_t i = 0; i < 16; i++)
		nodes[i] = (struct rendezvous_node){.id = i * 77, .weight = 1 + (double)i};
	begin = clock_mono_ns();
	for (uint64_t i = 0; i < ROUNDS; i++) {
		struct block_id id = block_id_make(&object, i);

		sum += (uint64_t)rendezvous_home(nodes, 16, &id);
	}
	report("home among 16 nodes", ROUNDS, since_s(begin));
	if (sum == 42)
		printf("\n");
}

int main(int argc, char **argv)
{
	unsigned classes = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000;
	const char *dir = argc > 2 ? argv[2] : "/tmp";
	char digest[MANIFEST_DIGEST_TEXT_BYTES], path[4200];
	struct error err = ERROR_INIT;
	struct manifest *m;
	int64_t begin = clock_mono_ns();

	if (classes == 0 || classes > 1000000) {
		fprintf(stderr, "usage: manifest_bench [1..1000000 THOUSAND FILES [DIR]]\n");
		return 2;
	}
	check(generate_manifest(dir, classes, digest, &err), "build", &err);
	report("build, with its fsync", classes * 1001.0 + 2, since_s(begin));
	snprintf(path, sizeof(path), "%s/%s.manifest", dir, digest);
	begin = clock_mono_ns();
	check(manifest_open(path, &m, &err), "open", &err);
	report("open", 1, since_s(begin));
	bench_lookups(m, classes);
	bench_entries(m);
	begin = clock_mono_ns();
	check(manifest_verify(m, &err), "verify", &err);
	report("verify, per entry", (double)manifest_info(m)->entries, since_s(begin));
	bench_placement(m);
	printf("%llu entries, file of %.1f MB, %.1f bytes an entry\n",
		(unsigned long long)manifest_info(m)->entries,
		(double)manifest_info(m)->file_bytes / 1e6,
		(double)manifest_info(m)->file_bytes / (double)manifest_info(m)->entries);
	manifest_unref(m);
	unlink(path);
	return 0;
}
