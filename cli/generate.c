#include "cli/generate.h"

#include <errno.h>
#include <string.h>

#include "cli/command.h"
#include "cli/version.h"
#include "common/cleanup.h"

int generate_overview(FILE *out)
{
	fputs("Granary shows remote datasets as local files and caches them for training.\n\n"
	      "Usage: granary COMMAND [ARGUMENTS] [--FLAGS]\n\n",
		out);
	for (const struct command *c = commands; c->name; c++)
		fprintf(out, "  %-16s %s\n", c->name, c->summary);
	fputs("\nOne command to a mounted dataset:\n"
	      "  granary up s3://bucket/imagenet /mnt/imagenet\n\n"
	      "`granary COMMAND --help` explains a command and its flags. Every flag can also be\n"
	      "given as GRANARY_NAME in the environment or `name = value` in a --config file.\n",
		out);
	return ferror(out) ? -EIO : 0;
}

/* ---- completion ------------------------------------------------------------------------------ */

static void completion_flag(void *arg, const struct flag *f)
{
	fprintf(arg, "--%s ", f->name);
}

int generate_completion(FILE *out)
{
	fputs("# bash completion for granary, generated from its command table\n"
	      "_granary() {\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} line=\"${COMP_WORDS[*]:1:COMP_CWORD-1} \"\n"
	      "\tlocal words=\"\"\n"
	      "\tcase \"$line\" in\n",
		out);
	for (const struct command *c = commands; c->name; c++) {
		fprintf(out, "\t\"%s \"*) words=\"", c->name);
		command_each_flag(c, completion_flag, out);
		fputs("--help\" ;;\n", out);
	}
	fputs("\t\"dataset \") words=\"add refresh ls stat rm\" ;;\n"
	      "\t\"quota \") words=\"set ls\" ;;\n"
	      "\t\" \") words=\"",
		out);
	for (const struct command *c = commands; c->name; c++) {
		size_t first = strcspn(c->name, " ");

		if (c == commands ||
			strncmp(c->name, c[-1].name, first + (c->name[first] == ' ')) != 0)
			fprintf(out, "%.*s ", (int)first, c->name);
	}
	fputs("\" ;;\n\tesac\n"
	      "\tif [[ $cur == -* || -n $words && $line != *\" \"*\" \" ]]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	      "\telse\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	      "\tfi\n"
	      "}\n"
	      "complete -o filenames -F _granary granary\n",
		out);
	return ferror(out) ? -EIO : 0;
}

/* ---- man pages ------------------------------------------------------------------------------- */

/* Text as roff: backslashes and leading dots lose their meaning, "  " lines become examples. */
static void man_text(FILE *out, const char *text)
{
	bool example = false;

	while (text && *text) {
		size_t len = strcspn(text, "\n");
		bool indented = text[0] == ' ';

		if (indented != example)
			fputs(indented ? ".nf\n" : ".fi\n", out);
		example = indented;
		if (len == 0)
			fputs(".PP", out);
		if (text[0] == '.' || text[0] == '\'')
			fputs("\\&", out);
		for (size_t i = 0; i < len; i++) {
			if (text[i] == '\\')
				fputs("\\e", out);
			else if (text[i] == '-')
				fputs("\\-", out);
			else
				fputc(text[i], out);
		}
		fputc('\n', out);
		text += len + (text[len] == '\n');
	}
	if (example)
		fputs(".fi\n", out);
}

static void man_flag(void *arg, const struct flag *f)
{
	FILE *out = arg;

	fputs(".TP\n", out);
	if (f->key)
		fprintf(out, "\\fB\\-%c\\fR, ", f->key);
	fputs("\\fB\\-\\-", out);
	for (const char *p = f->name; *p; p++)
		fputs(*p == '-' ? "\\-" : (char[]){*p, 0}, out);
	if (f->kind == FLAG_SWITCH)
		fputs("\\fR\n", out);
	else
		fprintf(out, "\\fR \\fI%s\\fR\n", f->argument);
	man_text(out, f->doc);
	if (f->choices)
		fprintf(out, "One of %s.\n", f->choices);
	if (f->fallback)
		fprintf(out, "Default: %s.\n", f->fallback);
}

static int man_page(const char *dir, const struct command *c, struct error *err)
{
	char path[4096], title[64];
	cleanup_file FILE *out = NULL;

	snprintf(title, sizeof(title), "granary-%s", c->name);
	for (char *p = title; *p; p++)
		*p = *p == ' ' ? '-' : *p;
	snprintf(path, sizeof(path), "%s/%s.1", dir, title);
	out = fopen(path, "we");
	if (!out)
		return error_set_errno(err, -errno, "cannot write %s", path);
	fprintf(out, ".TH %s 1 \"\" \"granary %s\"\n.SH NAME\n%s \\- %s\n", title, GRANARY_VERSION,
		title, c->summary);
	fprintf(out, ".SH SYNOPSIS\n\\fBgranary %s\\fR %s [\\fIFLAGS\\fR]\n.SH DESCRIPTION\n",
		c->name, c->arguments);
	man_text(out, c->text ? c->text : c->summary);
	fputs(".SH OPTIONS\n", out);
	command_each_flag(c, man_flag, out);
	fputs(".SH EXIT STATUS\n"
	      "0 success, 1 failure, 2 wrong command line or configuration, 3 no master answers,\n"
	      "4 not found.\n.SH SEE ALSO\n.BR granary (1)\n",
		out);
	return ferror(out) ? error_set(err, -EIO, "cannot write %s", path) : 0;
}

static int man_overview(const char *dir, struct error *err)
{
	char path[4096];
	cleanup_file FILE *out = NULL;

	snprintf(path, sizeof(path), "%s/granary.1", dir);
	out = fopen(path, "we");
	if (!out)
		return error_set_errno(err, -errno, "cannot write %s", path);
	fprintf(out,
		".TH granary 1 \"\" \"granary %s\"\n.SH NAME\n"
		"granary \\- a cache that shows remote training data as local files\n"
		".SH SYNOPSIS\n\\fBgranary\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR] "
		"[\\fIFLAGS\\fR]\n"
		".SH COMMANDS\n",
		GRANARY_VERSION);
	for (const struct command *c = commands; c->name; c++)
		fprintf(out, ".TP\n\\fB%s\\fR %s\n%s\n", c->name, c->arguments, c->summary);
	fputs(".SH ENVIRONMENT\nEvery flag \\fB\\-\\-some\\-name\\fR can be given as\n"
	      "\\fBGRANARY_SOME_NAME\\fR, or as \\fIsome-name = value\\fR in the file of\n"
	      "\\fB\\-\\-config\\fR; the command line wins over the environment, that over the "
	      "file.\n",
		out);
	return ferror(out) ? error_set(err, -EIO, "cannot write %s", path) : 0;
}

int generate_man_pages(const char *dir, struct error *err)
{
	int r = man_overview(dir, err);

	for (const struct command *c = commands; r == 0 && c->name; c++)
		r = man_page(dir, c, err);
	return r;
}
