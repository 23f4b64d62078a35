/* Every flag of every command comes from the command line, the environment and the config file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/commands.h"

#define VALUE_BYTES 64

/* What the command that ran last saw of the flag `wanted`. */
static struct {
	const char *flag;
	enum flag_kind kind;
	char value[VALUE_BYTES];
	size_t entries;
	bool given;
	int runs;
} seen;

static bool is_list(enum flag_kind kind)
{
	return kind == FLAG_LIST || kind == FLAG_LIMITS;
}

static int spy(struct invocation *inv)
{
	const char *text;
	char **list;

	seen.runs++;
	seen.entries = inv_list(inv, seen.flag, &list);
	text = is_list(seen.kind) ? (seen.entries ? list[0] : NULL) : inv_text(inv, seen.flag);
	seen.given = inv_given(inv, seen.flag);
	if (seen.kind == FLAG_SWITCH)
		text = inv_switch(inv, seen.flag) ? "yes" : "no";
	snprintf(seen.value, sizeof(seen.value), "%s", text ? text : "");
	return EXIT_OK;
}

/* clang-format off */
#define SPIES(X) \
	X(up) X(master) X(worker) X(mount) X(umount) X(dataset_add) X(dataset_refresh) \
	X(dataset_ls) X(dataset_stat) X(dataset_rm) X(quota_set) X(quota_ls) X(status) \
	X(doctor) X(purge) X(epoch) X(job_start) X(job_end) X(job_ls) X(job_explain) \
	X(job_top) X(hint) X(plan) X(sim) X(completion) X(man) X(version)
/* clang-format on */
#define SPY(name)                                  \
	int command_##name(struct invocation *inv) \
	{                                          \
		return spy(inv);                   \
	}
SPIES(SPY)

/* ---- running a command ----------------------------------------------------------------------- */

static char config_path[] = "/tmp/granary-flags-XXXXXX";

static void write_config(const char *name, const char *value)
{
	FILE *f = fopen(config_path, "w");

	assert_non_null(f);
	fprintf(f, "# of all commands\n[granary]\n%s = %s\n", name, value);
	assert_int_equal(fclose(f), 0);
}

/* The command with as many arguments as it wants, and these flags; NULLs are left out. */
static int run(const struct command *c, const char *flag, const char *other)
{
	char words[64], *argv[16], *rest = words;
	int argc = 0;

	snprintf(words, sizeof(words), "%s", c->name);
	argv[argc++] = (char *)"granary";
	for (char *word = strsep(&rest, " "); word; word = strsep(&rest, " "))
		argv[argc++] = word;
	if (flag)
		argv[argc++] = (char *)flag;
	if (other)
		argv[argc++] = (char *)other;
	for (int i = 0; i < c->min_arguments; i++)
		argv[argc++] = (char *)"argument";
	argv[argc] = NULL;
	return command_main(argc, argv);
}

static void variable_name(const struct flag *f, char *ret, size_t room)
{
	snprintf(ret, room, "GRANARY_%s", f->name);
	for (char *p = ret; *p; p++)
		*p = *p == '-' ? '_' : (*p >= 'a' && *p <= 'z') ? (char)(*p - 32) : *p;
}

/* Values that the kind allows: number 0, 1 or 2, all different where there are as many. */
static void sample(const struct flag *f, int number, char ret[VALUE_BYTES])
{
	const char *choice = f->choices;

	switch (f->kind) {
	case FLAG_SWITCH:
		snprintf(ret, VALUE_BYTES, "%s", number == 1 ? "no" : "yes");
		return;
	case FLAG_SIZE:
	case FLAG_RATE:
	case FLAG_LIMITS:
	case FLAG_QUOTA:
	case FLAG_NUMBER:
		snprintf(ret, VALUE_BYTES, "%d", 123000 + number);
		return;
	case FLAG_ADDRESS:
		snprintf(ret, VALUE_BYTES, "127.0.0.%d:1234", number + 1);
		return;
	case FLAG_CHOICE:
		for (int i = 0; i < number && strchr(choice, ','); i++)
			choice = strchr(choice, ',') + 1;
		snprintf(ret, VALUE_BYTES, "%.*s", (int)strcspn(choice, ","), choice);
		return;
	case FLAG_TEXT:
	case FLAG_LIST:
		snprintf(ret, VALUE_BYTES, "value %d", number);
		return;
	}
}

static void expect(const struct command *c, const struct flag *f, const char *from, int result,
	const char *value)
{
	if (result != EXIT_OK || strcmp(seen.value, value) != 0)
		fail_msg("granary %s: --%s from %s: exit code %d, '%s' instead of '%s'", c->name,
			f->name, from, result, seen.value, value);
	/* A repeated flag is not mixed from two sources. */
	if (is_list(f->kind) && seen.entries != 1)
		fail_msg("granary %s: --%s has %zu values", c->name, f->name, seen.entries);
}

static void check_flag(void *arg, const struct flag *f)
{
	const struct command *c = arg;
	char values[3][VALUE_BYTES], variable[96], config[64], flag[160];

	if (strcmp(f->name, "config") == 0)
		return;
	seen.flag = f->name;
	seen.kind = f->kind;
	for (int i = 0; i < 3; i++)
		sample(f, i, values[i]);
	variable_name(f, variable, sizeof(variable));
	snprintf(config, sizeof(config), "--config=%s", config_path);
	snprintf(flag, sizeof(flag), f->kind == FLAG_SWITCH ? "--%s" : "--%s=%s", f->name,
		values[2]);

	write_config(f->name, values[0]);
	expect(c, f, "the file", run(c, config, NULL), values[0]);
	assert_true(seen.given);
	setenv(variable, values[1], 1);
	expect(c, f, "the environment", run(c, NULL, NULL), values[1]);
	expect(c, f, "the environment before the file", run(c, config, NULL), values[1]);
	expect(c, f, "the command line before both", run(c, config, flag), values[2]);
	unsetenv(variable);
	expect(c, f, "the command line before the file", run(c, config, flag), values[2]);
}

static void every_flag_is_taken_from_everywhere(void **state)
{
	(void)state;
	for (const struct command *c = commands; c->name; c++)
		command_each_flag(c, check_flag, (void *)c);
	assert_true(seen.runs > 1000);
}

/* The file itself may be named by the environment. */
static void the_file_is_named_by_the_environment(void **state)
{
	(void)state;
	setenv("GRANARY_CONFIG", config_path, 1);
	write_config("output", "json");
	seen.flag = "output";
	seen.kind = FLAG_CHOICE;
	for (const struct command *c = commands; c->name; c++) {
		assert_int_equal(run(c, NULL, NULL), EXIT_OK);
		assert_string_equal(seen.value, "json");
	}
	unsetenv("GRANARY_CONFIG");
}

/* A default is nobody's word. */
static void a_fallback_was_not_given(void **state)
{
	(void)state;
	seen.flag = "log-level";
	seen.kind = FLAG_CHOICE;
	assert_int_equal(run(commands, NULL, NULL), EXIT_OK);
	assert_string_equal(seen.value, "info");
	assert_false(seen.given);
	assert_int_equal(run(commands, "--log-level=info", NULL), EXIT_OK);
	assert_true(seen.given);
}

/* One file is for all commands: a flag of another one is passed over, a name of none is not. */
static void a_file_may_hold_flags_of_all_commands(void **state)
{
	char config[64];
	int runs;

	(void)state;
	snprintf(config, sizeof(config), "--config=%s", config_path);
	seen.flag = "output";
	seen.kind = FLAG_CHOICE;
	for (const struct command *c = commands; c->name; c++) {
		write_config("cache-size", "1TB");
		assert_int_equal(run(c, config, NULL), EXIT_OK);
		runs = seen.runs;
		write_config("cache-sise", "1TB");
		assert_int_equal(run(c, config, NULL), EXIT_USAGE);
		assert_int_equal(seen.runs, runs);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_flag_is_taken_from_everywhere),
		cmocka_unit_test(the_file_is_named_by_the_environment),
		cmocka_unit_test(a_fallback_was_not_given),
		cmocka_unit_test(a_file_may_hold_flags_of_all_commands),
	};
	int fd = mkstemp(config_path), failed;

	if (fd < 0)
		return 1;
	close(fd);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(config_path);
	return failed;
}
