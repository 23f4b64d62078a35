#include "origin/s3_profile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "origin/options.h"

#define PROFILE_FILE_BYTES_MAX (4u << 20)
#define PROFILE_VALUE_BYTES_MAX 16384

static const struct {
	const char *key;
	size_t at;
} fields[] = {
	{"aws_access_key_id", offsetof(struct s3_profile, access_key_id)},
	{"aws_secret_access_key", offsetof(struct s3_profile, secret_access_key)},
	{"aws_session_token", offsetof(struct s3_profile, session_token)},
	{"region", offsetof(struct s3_profile, region)},
	{"endpoint_url", offsetof(struct s3_profile, endpoint)},
	{"role_arn", offsetof(struct s3_profile, role_arn)},
	{"role_session_name", offsetof(struct s3_profile, role_session_name)},
	{"web_identity_token_file", offsetof(struct s3_profile, web_identity_token_file)},
	{"credential_process", offsetof(struct s3_profile, credential_process)},
	{"source_profile", offsetof(struct s3_profile, source_profile)},
	{"sso_start_url", offsetof(struct s3_profile, sso)},
	{"sso_session", offsetof(struct s3_profile, sso)},
};

#define FIELDS (sizeof(fields) / sizeof(fields[0]))

static char **field(struct s3_profile *p, size_t i)
{
	return (char **)((char *)p + fields[i].at);
}

void s3_profile_deinit(struct s3_profile *p)
{
	for (size_t i = 0; i < FIELDS; i++) {
		origin_secret_free(*field(p, i));
		*field(p, i) = NULL;
	}
}

struct parse {
	struct s3_profile *p;
	const char *section; /* the one we want */
	bool overwrite;	     /* false: what another file said stays */
	FILE *file;
	/* inih reads lines of 200 bytes and session tokens are longer: what does not fit is handed
	 * over as continuation lines, and put together again in on_value. */
	bool inside_line, continued;
	size_t last; /* field that the last value went to; FIELDS: none */
	bool out_of_memory;
};

/* A reader for ini_parse_stream: like fgets, with long lines cut into a line and continuations. */
static char *read_piece(char *room, int bytes, void *stream)
{
	struct parse *ps = stream;
	int n = 0, c = EOF;

	ps->continued = ps->inside_line;
	if (ps->continued)
		room[n++] = ' ';
	while (n < bytes - 2 && (c = getc_unlocked(ps->file)) != EOF) {
		room[n++] = c ? (char)c : ' ';
		if (c == '\n')
			break;
	}
	ps->inside_line = c != '\n' && c != EOF;
	room[n] = '\0';
	return n > (ps->continued ? 1 : 0) ? room : NULL;
}

static bool append(char **slot, const char *more)
{
	size_t len = *slot ? strlen(*slot) : 0, extra = strlen(more);
	char *longer;

	if (len + extra > PROFILE_VALUE_BYTES_MAX)
		return false;
	longer = malloc(len + extra + 1);
	if (!longer)
		return false;
	memcpy(longer, *slot ? *slot : "", len);
	memcpy(longer + len, more, extra + 1);
	origin_secret_free(*slot);
	*slot = longer;
	return true;
}

static int on_value(void *arg, const char *section, const char *name, const char *value)
{
	struct parse *ps = arg;

	if (strcmp(section, ps->section) != 0) {
		ps->last = FIELDS;
		return 1;
	}
	ps->p->found = true;
	if (ps->continued) {
		if (ps->last < FIELDS && !append(field(ps->p, ps->last), value))
			ps->out_of_memory = true;
		return 1;
	}
	ps->last = FIELDS;
	for (size_t i = 0; i < FIELDS; i++) {
		char **slot = field(ps->p, i);

		if (strcmp(fields[i].key, name) != 0 || !*value || (*slot && !ps->overwrite))
			continue;
		origin_secret_free(*slot);
		*slot = NULL;
		ps->out_of_memory |= !append(slot, value);
		ps->last = i;
	}
	return 1;
}

static int read_file(struct s3_profile *p, const char *path, const char *section, struct error *err)
{
	cleanup_file FILE *f = fopen(path, "re");
	struct parse ps = {.p = p, .section = section, .file = f, .last = FIELDS};
	int line;

	if (!f) {
		if (errno == ENOENT || errno == ENOTDIR)
			return 0;
		return error_set_errno(err, -errno, "credentials: read %s", path);
	}
	if (fseek(f, 0, SEEK_END) != 0 || ftell(f) > PROFILE_FILE_BYTES_MAX)
		return error_set(err, -EINVAL, "credentials: %s is too large", path);
	rewind(f);
	line = ini_parse_stream(read_piece, &ps, on_value, &ps);
	if (ps.out_of_memory)
		return error_set(err, -ENOMEM, "credentials: %s: out of memory", path);
	if (line != 0)
		return error_set(err, -EINVAL,
			"credentials: %s: line %d is neither [section] nor key = value", path,
			line);
	return 0;
}

/* $HOME/.aws/NAME, unless the option names another file. */
static int file_path(
	const struct origin_options *opts, const char *key, const char *name, struct buf *ret)
{
	const char *given = origin_options_get(opts, key), *home = getenv("HOME");

	if (given && strncmp(given, "~/", 2) == 0 && home)
		return buf_printf(ret, "%s%s", home, given + 1);
	if (given)
		return buf_append_str(ret, given);
	return home ? buf_printf(ret, "%s/.aws/%s", home, name) : 0;
}

int s3_profile_read(const struct origin_options *opts, struct s3_profile *ret, struct error *err)
{
	const char *name = origin_options_get(opts, "profile");
	cleanup_buf struct buf credentials = BUF_INIT, config = BUF_INIT, section = BUF_INIT;
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	if (!name)
		name = "default";
	if (file_path(opts, "credentials-file", "credentials", &credentials) < 0 ||
		file_path(opts, "config-file", "config", &config) < 0 ||
		buf_printf(&section, "%s%s", strcmp(name, "default") ? "profile " : "", name) < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	/* The credentials file comes first: what it says stays. */
	if (credentials.len)
		r = read_file(ret, credentials.data, name, err);
	if (r == 0 && config.len)
		r = read_file(ret, config.data, section.data, err);
	if (r < 0)
		s3_profile_deinit(ret);
	return r;
}
