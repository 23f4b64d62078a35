#include "cli/command.h"

#include <argp.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/generate.h"
#include "cli/nearest.h"
#include "common/address.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "origin/limits.h"
#include "origin/origin.h"

#define FLAGS_MAX 96
#define LIST_MAX 256
#define KEY_BASE 0x100 /* argp keys of flags without a short form */

struct value {
	char *text;  /* owned; NULL: unset */
	char **list; /* of one that may be given again */
	size_t entries;
	bool fallback; /* nobody said it */
};

struct invocation {
	const struct command *command;
	struct flag flags[FLAGS_MAX];
	struct value values[FLAGS_MAX];
	size_t flag_count;
	char **arguments; /* borrowed from argv */
	int argument_count;
	FILE *nowhere;	  /* what argp adds to getopt's errors */
	struct error err; /* of the parser callback */
	int code;
};

/* ---- flags ----------------------------------------------------------------------------------- */

bool command_has_origin_flags(const struct command *c)
{
	for (int i = 0; i < COMMAND_FLAG_SETS && c->flag_sets[i]; i++) {
		for (const struct flag *f = c->flag_sets[i]; f->name; f++) {
			if (strcmp(f->name, "no-sign-request") == 0)
				return true;
		}
	}
	return false;
}

static bool command_declares(const struct command *c, const char *name)
{
	for (int i = 0; i < COMMAND_FLAG_SETS && c->flag_sets[i]; i++) {
		for (const struct flag *f = c->flag_sets[i]; f->name; f++) {
			if (strcmp(f->name, name) == 0)
				return true;
		}
	}
	return false;
}

void command_each_flag(
	const struct command *c, void (*fn)(void *arg, const struct flag *f), void *arg)
{
	for (int i = 0; i < COMMAND_FLAG_SETS && c->flag_sets[i]; i++) {
		for (const struct flag *f = c->flag_sets[i]; f->name; f++)
			fn(arg, f);
	}
	if (!command_has_origin_flags(c))
		return;
	/* The origins' own options; secrets are taken from the environment or files only. */
	for (const struct origin_option_info *o = origin_option_table(); o->key; o++) {
		struct flag f = {.name = o->key,
			.kind = o->off ? FLAG_SWITCH : FLAG_TEXT,
			.argument = o->off ? NULL : "VALUE",
			.doc = o->doc};

		if (!o->secret && !command_declares(c, o->key))
			fn(arg, &f);
	}
}

static void collect_flag(void *arg, const struct flag *f)
{
	struct invocation *inv = arg;

	assert(inv->flag_count < FLAGS_MAX);
	inv->flags[inv->flag_count++] = *f;
}

static int flag_index(const struct invocation *inv, const char *name)
{
	for (size_t i = 0; i < inv->flag_count; i++) {
		if (strcmp(inv->flags[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool choice_allowed(const char *choices, const char *text)
{
	size_t len = strlen(text);

	for (const char *c = choices; c; c = strchr(c, ',') ? strchr(c, ',') + 1 : NULL) {
		if (strncmp(c, text, len) == 0 && (c[len] == ',' || c[len] == '\0') && len)
			return true;
	}
	return false;
}

static int parse_switch(const char *text)
{
	static const char *const yes[] = {"yes", "true", "1", "on"};
	static const char *const no[] = {"no", "false", "0", "off"};

	for (int i = 0; i < 4; i++) {
		if (strcmp(text, yes[i]) == 0)
			return 1;
		if (strcmp(text, no[i]) == 0)
			return 0;
	}
	return -EINVAL;
}

static int parse_rate(const char *text, uint64_t *ret, struct error *err)
{
	*ret = 0;
	return strcmp(text, "off") == 0 ? 0 : rate_parse(text, ret, err);
}

static bool may_be_given_again(const struct flag *f)
{
	return f->kind == FLAG_LIST || f->kind == FLAG_LIMITS;
}

static int check_value(const struct flag *f, const char *text, struct error *err)
{
	struct origin_limits limits = ORIGIN_LIMITS_INIT;
	struct error why = ERROR_INIT;
	struct address address;
	uint64_t bytes;
	char *end;

	switch (f->kind) {
	case FLAG_ADDRESS:
		if (address_parse(text, &address, &why) < 0)
			return error_set(err, -EINVAL, "--%s: %s", f->name, why.text);
		break;
	case FLAG_QUOTA:
		if (strcmp(text, "unlimited") == 0)
			break;
		/* fall through */
	case FLAG_SIZE:
		if (size_parse(text, &bytes, &why) < 0)
			return error_set(err, -EINVAL, "--%s: %s", f->name, why.text);
		break;
	case FLAG_RATE:
		if (parse_rate(text, &bytes, &why) < 0)
			return error_set(err, -EINVAL, "--%s: %s, or off", f->name, why.text);
		break;
	case FLAG_LIMITS:
		if (origin_limits_add(&limits, text, &why) < 0)
			return error_set(err, -EINVAL, "--%s: %s", f->name, why.text);
		break;
	case FLAG_NUMBER:
		errno = 0;
		(void)strtoull(text, &end, 10);
		if (!isdigit((unsigned char)text[0]) || *end || errno)
			return error_set(err, -EINVAL, "--%s: '%s' is not a number", f->name, text);
		break;
	case FLAG_CHOICE:
		if (!choice_allowed(f->choices, text))
			return error_set(err, -EINVAL, "--%s: '%s' is not one of %s", f->name, text,
				f->choices);
		break;
	case FLAG_SWITCH:
		if (parse_switch(text) < 0)
			return error_set(
				err, -EINVAL, "--%s: '%s' is neither yes nor no", f->name, text);
		break;
	case FLAG_TEXT:
	case FLAG_LIST:
		break;
	}
	return 0;
}

static int value_set(struct invocation *inv, int i, const char *text, struct error *err)
{
	struct value *v = &inv->values[i];
	int r = check_value(&inv->flags[i], text, err);
	char *copy;

	if (r < 0)
		return r;
	copy = strdup(text);
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	if (!may_be_given_again(&inv->flags[i])) {
		free(v->text);
		v->text = copy;
		return 0;
	}
	if (!v->list)
		v->list = calloc(LIST_MAX, sizeof(char *));
	if (!v->list || v->entries == LIST_MAX) {
		free(copy);
		return error_set(err, -EINVAL, "--%s is given more than %d times",
			inv->flags[i].name, LIST_MAX);
	}
	v->list[v->entries++] = copy;
	return 0;
}

static void invocation_deinit(struct invocation *inv)
{
	if (inv->nowhere)
		fclose(inv->nowhere);
	for (size_t i = 0; i < inv->flag_count; i++) {
		free(inv->values[i].text);
		for (size_t k = 0; k < inv->values[i].entries; k++)
			free(inv->values[i].list[k]);
		free(inv->values[i].list);
	}
}

static bool value_unset(const struct invocation *inv, int i)
{
	return !inv->values[i].text && inv->values[i].entries == 0;
}

/* ---- environment and config file ------------------------------------------------------------- */

static int take_environment(struct invocation *inv, struct error *err)
{
	for (size_t i = 0; i < inv->flag_count; i++) {
		char name[96] = "GRANARY_";
		const char *text;
		size_t n = strlen(name);
		int r;

		for (const char *p = inv->flags[i].name; *p && n + 1 < sizeof(name); p++)
			name[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
		name[n] = '\0';
		text = getenv(name);
		if (!text || !*text || !value_unset(inv, (int)i))
			continue;
		r = value_set(inv, (int)i, text, err);
		if (r < 0)
			return error_prefix(err, r, "environment variable %s", name);
	}
	return 0;
}

struct config_reader {
	struct invocation *inv;
	FILE *file;
	bool before[FLAGS_MAX]; /* set before the file was read: the file does not override it */
	int line;		/* that was read last */
	int bad_line;		/* the first that `err` is about; inih goes on after errors */
	struct error err;
};

static void offer_flag(void *arg, const struct flag *f)
{
	nearest_offer(arg, f->name);
}

/* The one of all commands' flags that is nearest; at distance 0 it is known. */
static void find_anywhere(const char *name, struct nearest *ret)
{
	nearest_init(ret, name);
	for (const struct command *c = commands; c->name; c++)
		command_each_flag(c, offer_flag, ret);
}

__attribute__((format(printf, 2, 3))) static int config_refuse(
	struct config_reader *reader, const char *fmt, ...)
{
	va_list ap;

	if (reader->bad_line)
		return 0;
	reader->bad_line = reader->line;
	va_start(ap, fmt);
	vsnprintf(reader->err.text, sizeof(reader->err.text), fmt, ap);
	va_end(ap);
	return 0;
}

/* inih cuts longer lines in two and would take the second half for a setting. */
static char *config_read(char *buf, int room, void *arg)
{
	struct config_reader *reader = arg;
	char *line = fgets(buf, room, reader->file);

	reader->line++;
	if (!line || strchr(line, '\n') || feof(reader->file))
		return line;
	config_refuse(reader,
		"longer than %d characters: give that one on the command line or in the "
		"environment",
		room - 2);
	return NULL;
}

/* inih's handler: 1 goes on, 0 is an error. */
static int config_line(void *arg, const char *section, const char *name, const char *value)
{
	struct config_reader *reader = arg;
	int i = flag_index(reader->inv, name);
	struct error why = ERROR_INIT;
	struct nearest nearest;

	if (*section && strcmp(section, "granary") != 0)
		return config_refuse(reader, "unknown section [%s]: [granary], or none", section);
	if (i < 0) {
		/* One file serves all commands, so a flag of another command is fine here. */
		find_anywhere(name, &nearest);
		if (nearest.found && nearest.distance == 0)
			return 1;
		if (nearest.found)
			return config_refuse(reader, "unknown setting '%s', the nearest is '%s'",
				name, nearest.found);
		return config_refuse(reader,
			"unknown setting '%s': settings are named like the flags of `granary up "
			"--help` and other commands",
			name);
	}
	if (reader->before[i])
		return 1;
	if (value_set(reader->inv, i, value, &why) < 0)
		return config_refuse(reader, "%s", why.text);
	return 1;
}

static int take_config(struct invocation *inv, struct error *err)
{
	struct config_reader reader = {.inv = inv, .err = ERROR_INIT};
	cleanup_file FILE *file = NULL;
	int i = flag_index(inv, "config"), line;
	const char *path;

	if (i < 0 || !inv->values[i].text)
		return 0;
	path = inv->values[i].text;
	file = fopen(path, "re");
	if (!file)
		return error_set(
			err, -EINVAL, "cannot read config file %s: %s", path, strerror(errno));
	reader.file = file;
	for (size_t k = 0; k < inv->flag_count; k++)
		reader.before[k] = !value_unset(inv, (int)k);
	line = ini_parse_stream(config_read, &reader, config_line, &reader);
	if (ferror(file))
		return error_set(err, -EINVAL, "cannot read config file %s", path);
	/* inih counts what it cannot read at all. */
	if (line > 0 && (!reader.bad_line || line < reader.bad_line))
		return error_set(
			err, -EINVAL, "config file %s, line %d: not 'setting = value'", path, line);
	if (reader.bad_line)
		return error_set(err, -EINVAL, "config file %s, line %d: %s", path, reader.bad_line,
			reader.err.text);
	return 0;
}

static int take_fallbacks(struct invocation *inv, struct error *err)
{
	for (size_t i = 0; i < inv->flag_count; i++) {
		int r;

		if (!inv->flags[i].fallback || !value_unset(inv, (int)i))
			continue;
		r = value_set(inv, (int)i, inv->flags[i].fallback, err);
		if (r < 0)
			return r;
		inv->values[i].fallback = true;
	}
	return 0;
}

/* ---- argp ------------------------------------------------------------------------------------ */

/* argp_error would add a second line. */
__attribute__((format(printf, 2, 3), noreturn)) static void usage_error(
	const struct argp_state *state, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", state->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (`%s --help` says more)\n", state->name);
	exit(EXIT_USAGE);
}

static error_t parse_opt(int key, char *text, struct argp_state *state)
{
	struct invocation *inv = state->input;
	int i = -1;

	if (key == ARGP_KEY_INIT) {
		/* getopt's line about an unknown flag is enough; argp's hint after it goes here. */
		state->err_stream = inv->nowhere;
		return 0;
	}
	if (key == ARGP_KEY_ARG) {
		if (inv->argument_count == inv->command->max_arguments)
			usage_error(state, "'%s' is one argument too many", text);
		inv->arguments = state->argv + state->next - 1 - inv->argument_count;
		inv->argument_count++;
		return 0;
	}
	if (key == ARGP_KEY_END) {
		if (inv->argument_count < inv->command->min_arguments)
			usage_error(state, "%s missing: granary %s %s",
				inv->command->min_arguments == 1 ? "argument" : "arguments",
				inv->command->name, inv->command->arguments);
		return 0;
	}
	if (key >= KEY_BASE && key < KEY_BASE + (int)inv->flag_count) {
		i = key - KEY_BASE;
	} else {
		for (size_t k = 0; k < inv->flag_count; k++) {
			if (key && inv->flags[k].key == key)
				i = (int)k;
		}
	}
	if (i < 0)
		return ARGP_ERR_UNKNOWN;
	if (value_set(inv, i, text ? text : "yes", &inv->err) < 0)
		usage_error(state, "%s", inv->err.text);
	return 0;
}

static void fill_options(const struct invocation *inv, struct argp_option *options)
{
	for (size_t i = 0; i < inv->flag_count; i++) {
		const struct flag *f = &inv->flags[i];

		options[i] = (struct argp_option){
			.name = f->name,
			.key = f->key ? f->key : KEY_BASE + (int)i,
			.arg = f->kind == FLAG_SWITCH ? NULL : f->argument,
			.doc = f->doc,
		};
	}
}

/* As getopt takes them: whole, or a beginning (which of several is its business). */
static const struct flag *flag_by_prefix(const struct invocation *inv, const char *word)
{
	int i = flag_index(inv, word);

	for (size_t k = 0; k < inv->flag_count && i < 0; k++) {
		if (strncmp(inv->flags[k].name, word, strlen(word)) == 0)
			i = (int)k;
	}
	return i < 0 ? NULL : &inv->flags[i];
}

/* getopt would only say that it is unknown. */
static void check_flag_names(const struct invocation *inv, int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		int len = (int)strcspn(argv[i], "=") - 2;
		cleanup_free char *word = NULL;
		const struct flag *known;
		struct nearest nearest;

		if (strncmp(argv[i], "--", 2) != 0 || asprintf(&word, "%.*s", len, argv[i] + 2) < 0)
			continue;
		known = flag_by_prefix(inv, word);
		/* The next word is its value, whatever it looks like. */
		if (known && known->kind != FLAG_SWITCH && !argv[i][2 + len])
			i++;
		if (known || strncmp("help", word, (size_t)len) == 0 ||
			strncmp("usage", word, (size_t)len) == 0)
			continue;
		nearest_init(&nearest, word);
		for (size_t k = 0; k < inv->flag_count; k++)
			nearest_offer(&nearest, inv->flags[k].name);
		fprintf(stderr,
			"granary %s: there is no flag --%s%s%s (`granary %s --help` lists "
			"them)\n",
			inv->command->name, word, nearest.found ? "; the nearest is --" : "",
			nearest.found ? nearest.found : "", inv->command->name);
		exit(EXIT_USAGE);
	}
}

static int parse(struct invocation *inv, int argc, char **argv)
{
	struct argp_option options[FLAGS_MAX + 1] = {{0}};
	cleanup_free char *doc = NULL, *program = NULL;
	struct argp argp = {
		.options = options, .parser = parse_opt, .args_doc = inv->command->arguments};
	int r;

	check_flag_names(inv, argc, argv);
	fill_options(inv, options);
	if (asprintf(&doc, "%s\v%s", inv->command->summary,
		    inv->command->text ? inv->command->text : "") < 0 ||
		asprintf(&program, "granary %s", inv->command->name) < 0)
		return EXIT_FAILED;
	argp.doc = doc;
	argp_err_exit_status = EXIT_USAGE;
	argv[0] = program;
	/* In order, so that arguments stay one contiguous run of argv. */
	r = argp_parse(&argp, argc, argv, 0, NULL, inv);
	argv[0] = (char *)"granary";
	return r ? EXIT_USAGE : EXIT_OK;
}

/* ---- dispatch -------------------------------------------------------------------------------- */

/* How many words of argv name the command. */
static int match(const struct command *c, int argc, char **argv)
{
	const char *space = strchr(c->name, ' ');
	size_t first = space ? (size_t)(space - c->name) : strlen(c->name);

	if (argc < 2 || strlen(argv[1]) != first || strncmp(argv[1], c->name, first) != 0)
		return 0;
	if (!space)
		return 1;
	return argc > 2 && strcmp(argv[2], space + 1) == 0 ? 2 : 0;
}

static int run(const struct command *c, int argc, char **argv)
{
	struct invocation *inv = calloc(1, sizeof(*inv));
	struct error err = ERROR_INIT;
	enum log_level level;
	int r;

	if (!inv)
		return EXIT_FAILED;
	inv->command = c;
	inv->nowhere = fopen("/dev/null", "we");
	command_each_flag(c, collect_flag, inv);
	r = parse(inv, argc, argv);
	if (r == EXIT_OK && (take_environment(inv, &err) < 0 || take_config(inv, &err) < 0 ||
				    take_fallbacks(inv, &err) < 0))
		r = inv_fail(inv, -EINVAL, &err);
	if (r == EXIT_OK && flag_index(inv, "log-level") >= 0) {
		log_level_parse(inv_text(inv, "log-level"), &level);
		log_set_level(level);
	}
	if (r == EXIT_OK)
		r = c->run(inv);
	invocation_deinit(inv);
	free(inv);
	return r;
}

int command_main(int argc, char **argv)
{
	if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
		strcmp(argv[1], "help") == 0)
		return generate_overview(argc > 1 ? stdout : stderr) == 0 && argc > 1 ? EXIT_OK
										      : EXIT_USAGE;
	if (strcmp(argv[1], "--version") == 0)
		argv[1] = (char *)"version";
	for (const struct command *c = commands; c->name; c++) {
		int words = match(c, argc, argv);

		if (words)
			return run(c, argc - words, argv + words);
	}
	fprintf(stderr, "granary: there is no command '%s%s%s'; `granary --help` lists them\n",
		argv[1], argc > 2 && argv[2][0] != '-' ? " " : "",
		argc > 2 && argv[2][0] != '-' ? argv[2] : "");
	return EXIT_USAGE;
}

/* ---- what a running command sees ------------------------------------------------------------- */

int inv_argc(const struct invocation *inv)
{
	return inv->argument_count;
}

const char *inv_argument(const struct invocation *inv, int i)
{
	return i < inv->argument_count ? inv->arguments[i] : NULL;
}

const struct command *inv_command(const struct invocation *inv)
{
	return inv->command;
}

const char *inv_text(const struct invocation *inv, const char *flag)
{
	int i = flag_index(inv, flag);

	return i < 0 ? NULL : inv->values[i].text;
}

bool inv_given(const struct invocation *inv, const char *flag)
{
	int i = flag_index(inv, flag);

	return i >= 0 && !value_unset(inv, i) && !inv->values[i].fallback;
}

bool inv_switch(const struct invocation *inv, const char *flag)
{
	const char *text = inv_text(inv, flag);

	return text && parse_switch(text) == 1;
}

uint64_t inv_size(const struct invocation *inv, const char *flag, uint64_t unset)
{
	const char *text = inv_text(inv, flag);
	uint64_t bytes;

	return text && size_parse(text, &bytes, NULL) == 0 ? bytes : unset;
}

uint64_t inv_rate(const struct invocation *inv, const char *flag, uint64_t unset)
{
	const char *text = inv_text(inv, flag);
	uint64_t rate;

	return text && parse_rate(text, &rate, NULL) == 0 ? rate : unset;
}

uint64_t inv_number(const struct invocation *inv, const char *flag, uint64_t unset)
{
	const char *text = inv_text(inv, flag);

	return text ? strtoull(text, NULL, 10) : unset;
}

size_t inv_list(const struct invocation *inv, const char *flag, char ***ret_values)
{
	int i = flag_index(inv, flag);

	*ret_values = i < 0 ? NULL : inv->values[i].list;
	return i < 0 ? 0 : inv->values[i].entries;
}

bool inv_json(const struct invocation *inv)
{
	const char *output = inv_text(inv, "output");

	return output && strcmp(output, "json") == 0;
}

int inv_fail(const struct invocation *inv, int code, const struct error *err)
{
	const char *text = err->text[0] ? err->text : strerror(-code);

	(void)inv;
	/* Names are arbitrary bytes: an error stays one line. */
	fputs("granary: ", stderr);
	for (const char *p = text; *p; p++)
		fputc((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p, stderr);
	fputc('\n', stderr);
	switch (code) {
	case -ENOENT:
		return EXIT_NOT_FOUND;
	case -EAGAIN:
		return EXIT_UNREACHABLE;
	case -EINVAL:
	case -ERANGE:
		return EXIT_USAGE;
	default:
		return EXIT_FAILED;
	}
}
