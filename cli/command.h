/*
 * The command line as data: every command and flag is declared once, here the types, in commands.c
 * the table. Parsing (argp), --help, the config file, GRANARY_* variables, man pages and shell
 * completion are all made from it.
 *
 * A flag's value comes from the command line, else the environment (GRANARY_CACHE_DIR for
 * --cache-dir), else the config file ("cache-dir = ..."), else the table's fallback.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Exit codes that mean something. */
enum exit_code {
	EXIT_OK = 0,
	EXIT_FAILED = 1,      /* the operation failed; the text says why */
	EXIT_USAGE = 2,	      /* the command line or the configuration is wrong */
	EXIT_UNREACHABLE = 3, /* no master answers */
	EXIT_NOT_FOUND = 4,   /* no such dataset, mount, ... */
};

enum flag_kind {
	FLAG_TEXT,
	FLAG_SWITCH,  /* no argument; yes/no in config and environment */
	FLAG_SIZE,    /* checked by size_parse */
	FLAG_RATE,    /* checked by rate_parse; `off` is 0 */
	FLAG_LIMITS,  /* checked by origin_limits_add; may be given again */
	FLAG_QUOTA,   /* a size or "unlimited" */
	FLAG_ADDRESS, /* checked by address_parse */
	FLAG_NUMBER,  /* a non-negative integer */
	FLAG_CHOICE,  /* one of `choices`, comma-separated */
	FLAG_LIST,    /* may be given again */
};

struct flag {
	const char *name; /* without the dashes */
	char key;	  /* the short form, 0 for none */
	enum flag_kind kind;
	const char *argument; /* shown in help: SIZE, DIR, ... */
	const char *choices;
	const char *fallback; /* NULL: unset */
	const char *doc;
};

struct invocation;
typedef int command_fn(struct invocation *inv);

#define COMMAND_FLAG_SETS 7
struct command {
	const char *name;      /* "up", "dataset add" */
	const char *arguments; /* "ORIGIN MOUNTPOINT" */
	int min_arguments, max_arguments;
	const char *summary;				 /* one line */
	const char *text;				 /* paragraphs and examples */
	const struct flag *flag_sets[COMMAND_FLAG_SETS]; /* each ends with a NULL name */
	command_fn *run;				 /* returns an exit code */
};

/* Ends with a NULL name. */
extern const struct command commands[];

/* Parses and runs; prints errors as one line. Returns the exit code. */
int command_main(int argc, char **argv);

/* Calls fn for every flag of the command, those that origins declare included. */
void command_each_flag(
	const struct command *c, void (*fn)(void *arg, const struct flag *f), void *arg);
bool command_has_origin_flags(const struct command *c);

/* ---- what a running command sees ------------------------------------------------------------- */

int inv_argc(const struct invocation *inv);
const char *inv_argument(const struct invocation *inv, int i); /* NULL past the end */
const struct command *inv_command(const struct invocation *inv);

/* NULL when unset. The name has to be one of the command's flags. */
const char *inv_text(const struct invocation *inv, const char *flag);
/* By the command line, the environment or the config file; not by the table's fallback. */
bool inv_given(const struct invocation *inv, const char *flag);
bool inv_switch(const struct invocation *inv, const char *flag);
/* `unset` when the flag is unset; values were checked when they were parsed. */
uint64_t inv_size(const struct invocation *inv, const char *flag, uint64_t unset);
uint64_t inv_rate(const struct invocation *inv, const char *flag, uint64_t unset);
uint64_t inv_number(const struct invocation *inv, const char *flag, uint64_t unset);
/* The values of a flag that may be given again. */
size_t inv_list(const struct invocation *inv, const char *flag, char ***ret_values);
bool inv_json(const struct invocation *inv); /* -o json */

/* Prints "granary: TEXT" and returns the exit code that fits a negative errno. */
int inv_fail(const struct invocation *inv, int code, const struct error *err);
