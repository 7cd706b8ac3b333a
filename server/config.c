/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.c - see config.h
 *
 * The file's shape is a libcyaml schema; libcyaml checks keys and types and says where. Values that have a grammar of
 * their own (sizes, addresses, networks) are checked here afterwards; config_line() finds their line again.
 */
#include "server/config.h"

#include <arpa/inet.h>
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/base/size.h"

#define CONFIG_FILE_MAX (1u << 20)

/* ---- the file's schema ---------------------------------------------------------------------------------------------- */

struct file_export {
	char *image, *name;
	bool *read_only;
	enum squash *squash;
	uint32_t *anon_uid, *anon_gid;
	char **allow;
	uint32_t allow_count;
};

struct file_rule {
	char *match;
	char **advise;
	uint32_t advise_count;
};

struct file_config {
	char **listen;
	uint32_t listen_count;
	char **allow;
	uint32_t allow_count;
	char *cache_size, *state_dir, *control, *metrics;
	char **parent_dirs;
	uint32_t parent_dirs_count;
	bool *read_only, *force_parent, *discard, *async, *no_journal_ok, *snapshots, *detect_zeroes, *secure_ports,
		*plain_filehandles;
	enum squash *squash;
	uint32_t *threads, *workers, *busy_poll, *max_connections, *lease_seconds, *grace_seconds;
	enum log_level *log_level;
	enum readahead *readahead;
	struct file_rule *rules;
	uint32_t rules_count;
	struct file_export *exports;
	uint32_t exports_count;
};

static const cyaml_strval_t squash_words[] = {{"root", SQUASH_ROOT}, {"none", SQUASH_NONE}, {"all", SQUASH_ALL}};

static const cyaml_strval_t level_words[] = {
	{"error", LOG_LVL_ERROR},
	{"warn", LOG_LVL_WARN},
	{"info", LOG_LVL_INFO},
	{"debug", LOG_LVL_DEBUG},
};

static const cyaml_strval_t readahead_words[] = {
	{"auto", READAHEAD_AUTO},
	{"hints", READAHEAD_HINTS},
	{"off", READAHEAD_OFF},
};

static const cyaml_schema_value_t string_entry = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, CYAML_UNLIMITED),
};

#define OPT_PTR (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)

static const cyaml_schema_field_t export_fields[] = {
	CYAML_FIELD_STRING_PTR("image", CYAML_FLAG_POINTER, struct file_export, image, 1, CYAML_UNLIMITED),
	CYAML_FIELD_STRING_PTR("name", OPT_PTR, struct file_export, name, 1, CYAML_UNLIMITED),
	CYAML_FIELD_BOOL_PTR("read-only", OPT_PTR, struct file_export, read_only),
	CYAML_FIELD_ENUM_PTR("squash", OPT_PTR | CYAML_FLAG_STRICT, struct file_export, squash, squash_words,
			     CYAML_ARRAY_LEN(squash_words)),
	CYAML_FIELD_UINT_PTR("anon-uid", OPT_PTR, struct file_export, anon_uid),
	CYAML_FIELD_UINT_PTR("anon-gid", OPT_PTR, struct file_export, anon_gid),
	CYAML_FIELD_SEQUENCE("allow", OPT_PTR, struct file_export, allow, &string_entry, 0, CYAML_UNLIMITED),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t export_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_export, export_fields),
};

static const cyaml_schema_field_t rule_fields[] = {
	CYAML_FIELD_STRING_PTR("match", CYAML_FLAG_POINTER, struct file_rule, match, 1, 255),
	CYAML_FIELD_SEQUENCE("advise", CYAML_FLAG_POINTER, struct file_rule, advise, &string_entry, 1, 8),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t rule_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_rule, rule_fields),
};

static const cyaml_schema_field_t top_fields[] = {
	CYAML_FIELD_SEQUENCE("listen", OPT_PTR, struct file_config, listen, &string_entry, 0, CYAML_UNLIMITED),
	CYAML_FIELD_SEQUENCE("allow", OPT_PTR, struct file_config, allow, &string_entry, 0, CYAML_UNLIMITED),
	CYAML_FIELD_STRING_PTR("cache-size", OPT_PTR, struct file_config, cache_size, 1, CYAML_UNLIMITED),
	CYAML_FIELD_STRING_PTR("state-dir", OPT_PTR, struct file_config, state_dir, 1, CYAML_UNLIMITED),
	CYAML_FIELD_STRING_PTR("control", OPT_PTR, struct file_config, control, 1, CYAML_UNLIMITED),
	CYAML_FIELD_STRING_PTR("metrics", OPT_PTR, struct file_config, metrics, 1, CYAML_UNLIMITED),
	CYAML_FIELD_SEQUENCE("parent-dirs", OPT_PTR, struct file_config, parent_dirs, &string_entry, 0,
			     CYAML_UNLIMITED),
	CYAML_FIELD_BOOL_PTR("force-parent", OPT_PTR, struct file_config, force_parent),
	CYAML_FIELD_BOOL_PTR("discard", OPT_PTR, struct file_config, discard),
	CYAML_FIELD_BOOL_PTR("detect-zeroes", OPT_PTR, struct file_config, detect_zeroes),
	CYAML_FIELD_BOOL_PTR("async", OPT_PTR, struct file_config, async),
	CYAML_FIELD_BOOL_PTR("no-journal-ok", OPT_PTR, struct file_config, no_journal_ok),
	CYAML_FIELD_BOOL_PTR("read-only", OPT_PTR, struct file_config, read_only),
	CYAML_FIELD_BOOL_PTR("snapshots", OPT_PTR, struct file_config, snapshots),
	CYAML_FIELD_BOOL_PTR("secure-ports", OPT_PTR, struct file_config, secure_ports),
	CYAML_FIELD_BOOL_PTR("plain-filehandles", OPT_PTR, struct file_config, plain_filehandles),
	CYAML_FIELD_ENUM_PTR("squash", OPT_PTR | CYAML_FLAG_STRICT, struct file_config, squash, squash_words,
			     CYAML_ARRAY_LEN(squash_words)),
	CYAML_FIELD_UINT_PTR("threads", OPT_PTR, struct file_config, threads),
	CYAML_FIELD_UINT_PTR("workers", OPT_PTR, struct file_config, workers),
	CYAML_FIELD_UINT_PTR("busy-poll", OPT_PTR, struct file_config, busy_poll),
	CYAML_FIELD_UINT_PTR("max-connections", OPT_PTR, struct file_config, max_connections),
	CYAML_FIELD_UINT_PTR("lease-seconds", OPT_PTR, struct file_config, lease_seconds),
	CYAML_FIELD_UINT_PTR("grace-seconds", OPT_PTR, struct file_config, grace_seconds),
	CYAML_FIELD_ENUM_PTR("log-level", OPT_PTR | CYAML_FLAG_STRICT, struct file_config, log_level, level_words,
			     CYAML_ARRAY_LEN(level_words)),
	CYAML_FIELD_ENUM_PTR("readahead", OPT_PTR | CYAML_FLAG_STRICT, struct file_config, readahead, readahead_words,
			     CYAML_ARRAY_LEN(readahead_words)),
	CYAML_FIELD_SEQUENCE("rules", OPT_PTR, struct file_config, rules, &rule_entry, 0, CYAML_UNLIMITED),
	CYAML_FIELD_SEQUENCE("exports", OPT_PTR, struct file_config, exports, &export_entry, 0, CYAML_UNLIMITED),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t top_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct file_config, top_fields),
};

/* ---- where in the file ---------------------------------------------------------------------------------------------- */

/* The line of top.key, top.key[i] or top.key[i].sub[j]; 1 when it cannot be found. i, j < 0: not an index. */
static unsigned config_line(const uint8_t *data, size_t len, const char *key, int i, const char *sub, int j)
{
	yaml_parser_t p;
	yaml_document_t d;
	yaml_node_t *n;
	unsigned line = 1;
	const struct {
		const char *key;
		int index;
	} path[] = {{key, i}, {sub, j}};

	if (!yaml_parser_initialize(&p))
		return line;
	yaml_parser_set_input_string(&p, data, len);
	if (!yaml_parser_load(&p, &d)) {
		yaml_parser_delete(&p);
		return line;
	}
	n = yaml_document_get_root_node(&d);
	for (size_t step = 0; n && step < ARRAY_LEN(path) && path[step].key; step++) {
		yaml_node_t *found = NULL;

		if (n->type != YAML_MAPPING_NODE)
			break;
		for (yaml_node_pair_t *q = n->data.mapping.pairs.start; q < n->data.mapping.pairs.top; q++) {
			yaml_node_t *k = yaml_document_get_node(&d, q->key);

			if (k && k->type == YAML_SCALAR_NODE &&
			    strcmp((const char *)k->data.scalar.value, path[step].key) == 0)
				found = yaml_document_get_node(&d, q->value);
		}
		if (found && path[step].index >= 0 && found->type == YAML_SEQUENCE_NODE &&
		    path[step].index < found->data.sequence.items.top - found->data.sequence.items.start)
			found = yaml_document_get_node(&d, found->data.sequence.items.start[path[step].index]);
		n = found;
		if (n)
			line = (unsigned)n->start_mark.line + 1;
	}
	yaml_document_delete(&d);
	yaml_parser_delete(&p);
	return line;
}

/* libcyaml says what is wrong in its first message and where in the next ones, from the inside out: "in mapping field 'x' (line: 3,
 * column: 7)", "in sequence entry '0' (…)". */
struct schema_complaint {
	char text[256];
	char place[128]; /* "rules[0].advise" */
	unsigned line;
};

/* What was being looked at when something was missing around it: the last key, the last entry. */
static bool is_inside(const struct schema_complaint *sc, const char *msg)
{
	return (strncmp(sc->text, "Missing ", 8) == 0 && strstr(msg, "in mapping field '")) ||
	       (strncmp(sc->text, "Insufficient ", 13) == 0 && strstr(msg, "in sequence entry '"));
}

/* What is around the place that is known so far. */
static void place_in(struct schema_complaint *sc, const char *msg)
{
	static const char field[] = "in mapping field '", entry[] = "in sequence entry '";
	char inner[sizeof sc->place];
	const char *p;

	memcpy(inner, sc->place, sizeof inner);
	if ((p = strstr(msg, field))) {
		p += sizeof field - 1;
		snprintf(sc->place, sizeof sc->place, "%.*s%s%.60s", (int)min_u64(strcspn(p, "'"), 60), p,
			 inner[0] && inner[0] != '[' ? "." : "", inner);
	} else if ((p = strstr(msg, entry))) {
		p += sizeof entry - 1;
		snprintf(sc->place, sizeof sc->place, "[%lu]%s%.60s", strtoul(p, NULL, 10) - 1, /* it counts from 1 */
			 inner[0] && inner[0] != '[' ? "." : "", inner);
	}
}

/* In words for people. */
static void reword(struct schema_complaint *sc)
{
	static const struct {
		const char *begins, *words;
		bool rest; /* what follows its beginning is said, in front */
	} known[] = {
		{"Missing required mapping field: ", " is missing", true},
		{"Insufficient entries", "expected at least one entry", false},
		{"STRING length < ", "must not be empty", false},
		{"Expecting SEQUENCE", "expected a list", false},
		{"Expecting MAPPING", "expected keys with values", false},
		{"Expecting ", "expected one value", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		size_t n = strlen(known[i].begins);
		char rest[64];

		if (strncmp(sc->text, known[i].begins, n) != 0)
			continue;
		snprintf(rest, sizeof rest, "%.60s", known[i].rest ? sc->text + n : "");
		snprintf(sc->text, sizeof sc->text, "%s%s", rest, known[i].words);
		return;
	}
}

__attribute__((format(printf, 3, 0))) static void schema_log(cyaml_log_t level, void *ctx, const char *fmt, va_list ap)
{
	struct schema_complaint *sc = ctx;
	char msg[512];
	const char *at;
	size_t n;

	if (level < CYAML_LOG_ERROR)
		return;
	vsnprintf(msg, sizeof msg, fmt, ap);
	n = strcspn(msg, "\n");
	msg[n] = '\0';
	at = strstr(msg, "line: ");
	if (at && (sc->line || !is_inside(sc, msg)) && strncmp(sc->text, "libyaml:", 8) != 0)
		place_in(sc, msg);
	if (at && !sc->line)
		sc->line = (unsigned)strtoul(at + 6, NULL, 10);
	if (!sc->text[0] && !at) {
		const char *body = strncmp(msg, "Load: ", 6) == 0 ? msg + 6 : msg;

		snprintf(sc->text, sizeof sc->text, "%.255s", body);
	}
}

/* libcyaml gives the line of the mapping for a key that it does not know: look for the key itself. */
static unsigned complaint_line(const struct schema_complaint *sc, const uint8_t *data, size_t len)
{
	static const char unknown[] = "Unexpected key: ";
	const char *key = sc->text + sizeof unknown - 1;
	size_t klen = strlen(sc->text) - (sizeof unknown - 1);
	unsigned line = 1;

	if (strncmp(sc->text, unknown, sizeof unknown - 1) != 0)
		return sc->line ? sc->line : 1;
	for (size_t at = 0; at < len; line++) {
		const uint8_t *nl = memchr(data + at, '\n', len - at);
		size_t end = nl ? (size_t)(nl - data) : len;

		while (at < end && (data[at] == ' ' || data[at] == '-'))
			at++;
		if (end - at > klen && memcmp(data + at, key, klen) == 0 && data[at + klen] == ':')
			return line;
		at = end + 1;
	}
	return sc->line ? sc->line : 1;
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static int slurp(const char *path, uint8_t **data, size_t *len, struct why *why)
{
	FILE *f = fopen(path, "re");
	uint8_t *buf;
	size_t n;
	int err = 0;

	if (!f)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	buf = malloc(CONFIG_FILE_MAX + 1);
	if (!buf) {
		fclose(f);
		return -ENOMEM;
	}
	n = fread(buf, 1, CONFIG_FILE_MAX + 1, f);
	if (ferror(f))
		err = why_set(why, -EIO, "%s: %s", path, strerror(errno ? errno : EIO));
	else if (n > CONFIG_FILE_MAX)
		err = why_set(why, -EFBIG, "%s: a configuration of more than 1 MiB", path);
	fclose(f);
	if (err) {
		free(buf);
		return err;
	}
	*data = buf;
	*len = n;
	return 0;
}

static int grow(void *array, unsigned *n, size_t size)
{
	void *p = realloc(*(void **)array, (*n + 1) * size);

	if (!p)
		return -ENOMEM;
	memset((char *)p + *n * size, 0, size);
	*(void **)array = p;
	(*n)++;
	return 0;
}

static int add_image(struct config *c, const char *path, const char *name, struct config_image **out, struct why *why)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	struct config_image *im;
	size_t len;

	len = strlen(base);
	if (!name && len > 4 && strcasecmp(base + len - 4, ".vhd") == 0)
		len -= 4;
	if (name) {
		base = name[0] == '/' ? name + 1 : name;
		len = strlen(base);
	}
	if (len == 0 || len > 255 || memchr(base, '/', len) || (len == 1 && base[0] == '.') ||
	    (len == 2 && base[0] == '.' && base[1] == '.'))
		return why_set(why, -EINVAL, "%s: export name \"%s\": expected one path component", path, base);
	for (unsigned i = 0; i < c->nimage; i++)
		if (strlen(c->image[i].name) == len && memcmp(c->image[i].name, base, len) == 0)
			return why_set(why, -EEXIST, "%s: export name \"%s\" is taken by %s; give another with %s=NAME",
				       path, c->image[i].name, c->image[i].path, path);
	if (grow(&c->image, &c->nimage, sizeof *c->image) < 0)
		return -ENOMEM;
	im = &c->image[c->nimage - 1];
	im->path = strdup(path);
	im->name = strndup(base, len);
	im->opts = (struct export_opts){.anon_uid = 65534, .anon_gid = 65534};
	if (!im->path || !im->name)
		return -ENOMEM;
	if (out)
		*out = im;
	return 0;
}

static int take_export(struct config *c, const struct file_export *fe, struct why *why)
{
	struct config_image *im;
	int err;

	if ((err = add_image(c, fe->image, fe->name, &im, why)) < 0)
		return err;
	if (fe->read_only)
		im->opts.read_only = *fe->read_only;
	if (fe->squash) {
		im->opts.squash = *fe->squash;
		im->squash_given = true;
	}
	if (fe->anon_uid)
		im->opts.anon_uid = *fe->anon_uid;
	if (fe->anon_gid)
		im->opts.anon_gid = *fe->anon_gid;
	for (uint32_t i = 0; i < fe->allow_count; i++) {
		struct cidr net;

		if ((err = cidr_parse(fe->allow[i], &net, why)) < 0 ||
		    (err = grow(&im->allow, &im->opts.nallow, sizeof *im->allow)) < 0)
			return err;
		im->allow[im->opts.nallow - 1] = net;
	}
	im->opts.allow = im->allow;
	return 0;
}

/* Of a rule, for the complaint; index < 0: all of the field. */
struct rule_field {
	const char *name;
	int index;
};

static int take_rule(struct config *c, const struct file_rule *fr, struct rule_field *at, struct why *why)
{
	struct adv_rule *rule;
	const char *clash;
	uint32_t hints = 0;
	int err;

	*at = (struct rule_field){"match", -1};
	if (strchr(fr->match, '/'))
		return why_set(why, -EINVAL, "\"%s\": names have no '/'", fr->match);
	at->name = "advise";
	for (uint32_t i = 0; i < fr->advise_count; i++) {
		uint32_t one;

		at->index = (int)i;
		if ((err = adv_parse(fr->advise[i], strlen(fr->advise[i]), &one, why)) < 0)
			return err;
		hints |= one;
	}
	at->index = -1;
	if ((clash = adv_clash(hints)))
		return why_set(why, -EINVAL, "%s", clash);
	if (grow(&c->rule, &c->nrule, sizeof *c->rule) < 0)
		return -ENOMEM;
	rule = &c->rule[c->nrule - 1];
	rule->hints = hints;
	rule->match = strdup(fr->match);
	return rule->match ? 0 : -ENOMEM;
}

/* Where they stand in a struct config, and what they may be. */
static const struct {
	const char *name;
	size_t at;
	unsigned min, max;
} numbers[] = {
	[CONFIG_THREADS] = {"threads", offsetof(struct config, loops), 1, 256},
	[CONFIG_WORKERS] = {"workers", offsetof(struct config, workers), 1, 1024},
	[CONFIG_BUSY_POLL] = {"busy-poll", offsetof(struct config, busy_poll_us), 0, 1000},
	[CONFIG_MAX_CONNECTIONS] = {"max-connections", offsetof(struct config, max_connections), 1, 65536},
	[CONFIG_LEASE] = {"lease-seconds", offsetof(struct config, lease_seconds), 1, 3600},
	[CONFIG_GRACE] = {"grace-seconds", offsetof(struct config, grace_seconds), 1, 3600},
};

int config_set_number(struct config *c, enum config_number which, uint64_t value, struct why *why)
{
	if (value < numbers[which].min || value > numbers[which].max)
		return why_set(why, -EINVAL, "expected a number from %u to %u", numbers[which].min, numbers[which].max);
	*(unsigned *)((char *)c + numbers[which].at) = (unsigned)value;
	return 0;
}

/* A value was refused: put file and line in front of what was said. */
static int at_line(struct why *why, int err, const char *path, unsigned line)
{
	return why_prefix(why, err, "%s:%u", path, line);
}

static int take_rules(struct config *c, const struct file_config *f, const char *path, const uint8_t *data, size_t len,
		      struct why *why)
{
	for (uint32_t i = 0; i < f->rules_count; i++) {
		struct rule_field at;
		char field[64];
		int err = take_rule(c, &f->rules[i], &at, why);

		if (!err)
			continue;
		snprintf(field, sizeof field, at.index < 0 ? "rules[%u].%s" : "rules[%u].%s[%d]", i, at.name, at.index);
		why_prefix(why, err, "%s", field);
		return at_line(why, err, path, config_line(data, len, "rules", (int)i, at.name, at.index));
	}
	return 0;
}

static int take_numbers(struct config *c, const struct file_config *f, const char *path, const uint8_t *data,
			size_t len, struct why *why)
{
	const uint32_t *const said[] = {
		[CONFIG_THREADS] = f->threads,     [CONFIG_WORKERS] = f->workers,
		[CONFIG_BUSY_POLL] = f->busy_poll, [CONFIG_MAX_CONNECTIONS] = f->max_connections,
		[CONFIG_LEASE] = f->lease_seconds, [CONFIG_GRACE] = f->grace_seconds,
	};

	for (unsigned i = 0; i < ARRAY_LEN(said); i++) {
		int err = said[i] ? config_set_number(c, (enum config_number)i, *said[i], why) : 0;

		if (!err)
			continue;
		why_prefix(why, err, "%s: %u", numbers[i].name, *said[i]);
		return at_line(why, err, path, config_line(data, len, numbers[i].name, -1, NULL, -1));
	}
	return 0;
}

static int take_lists(struct config *c, const struct file_config *f, const char *path, const uint8_t *data, size_t len,
		      struct why *why)
{
	int err;

	for (uint32_t i = 0; i < f->listen_count; i++)
		if ((err = config_add_listen(c, f->listen[i], why)) < 0)
			return at_line(why, err, path, config_line(data, len, "listen", (int)i, NULL, -1));
	for (uint32_t i = 0; i < f->allow_count; i++)
		if ((err = config_add_allow(c, f->allow[i], why)) < 0)
			return at_line(why, err, path, config_line(data, len, "allow", (int)i, NULL, -1));
	for (uint32_t i = 0; i < f->parent_dirs_count; i++)
		if ((err = config_add_parent_dir(c, f->parent_dirs[i], why)) < 0)
			return at_line(why, err, path, config_line(data, len, "parent-dirs", (int)i, NULL, -1));
	if ((err = take_rules(c, f, path, data, len, why)) < 0)
		return err;
	for (uint32_t i = 0; i < f->exports_count; i++)
		if ((err = take_export(c, &f->exports[i], why)) < 0)
			return at_line(why, err, path, config_line(data, len, "exports", (int)i, NULL, -1));
	return 0;
}

static int take_file(struct config *c, const struct file_config *f, const char *path, const uint8_t *data, size_t len,
		     struct why *why)
{
	int err;

	if (f->squash)
		c->squash = *f->squash;
	if (f->read_only)
		c->read_only = *f->read_only;
	if (f->snapshots)
		c->snapshots = *f->snapshots;
	if (f->secure_ports)
		c->secure_ports = *f->secure_ports;
	if (f->plain_filehandles)
		c->plain_filehandles = *f->plain_filehandles;
	if (f->discard)
		c->discard = *f->discard;
	if (f->detect_zeroes)
		c->detect_zeroes = *f->detect_zeroes;
	if (f->async)
		c->async = *f->async;
	if (f->no_journal_ok)
		c->no_journal_ok = *f->no_journal_ok;
	if (f->force_parent)
		c->force_parent = *f->force_parent;
	if (f->log_level)
		c->log_level = (int)*f->log_level;
	if (f->readahead)
		c->readahead = *f->readahead;
	if (f->control) {
		free(c->control);
		if (!(c->control = strdup(f->control)))
			return -ENOMEM;
	}
	if (f->metrics) {
		free(c->metrics);
		if (!(c->metrics = strdup(f->metrics)))
			return -ENOMEM;
	}
	if (f->state_dir) {
		free(c->state_dir);
		if (!(c->state_dir = strdup(f->state_dir)))
			return -ENOMEM;
	}
	if (f->cache_size && (err = config_set_cache_size(c, f->cache_size, why)) < 0)
		return at_line(why, err, path, config_line(data, len, "cache-size", -1, NULL, -1));
	if ((err = take_numbers(c, f, path, data, len, why)) < 0)
		return err;
	return take_lists(c, f, path, data, len, why);
}

int config_load(struct config *c, const char *path, struct why *why)
{
	struct schema_complaint sc = {.line = 0};
	const cyaml_config_t cy = {
		.log_fn = schema_log,
		.log_ctx = &sc,
		.mem_fn = cyaml_mem,
		.log_level = CYAML_LOG_ERROR,
	};
	AUTO(freep) uint8_t *data = NULL;
	struct file_config *f = NULL;
	size_t len = 0;
	unsigned line;
	cyaml_err_t ce;
	int err;

	if ((err = slurp(path, &data, &len, why)) < 0)
		return err;
	ce = cyaml_load_data(data, len, &cy, &top_schema, (cyaml_data_t **)&f, NULL);
	if (ce != CYAML_OK) {
		if (ce == CYAML_ERR_OOM)
			return -ENOMEM;
		line = complaint_line(&sc, data, len);
		reword(&sc);
		return why_set(why, -EINVAL, "%s:%u: %s%s%s", path, line, sc.place, sc.place[0] ? ": " : "",
			       sc.text[0] ? sc.text : cyaml_strerror(ce));
	}
	err = f ? take_file(c, f, path, data, len, why) : 0;
	c->from_file = true;
	cyaml_free(&cy, &top_schema, f, 0);
	return err;
}

/* ---- the command line ------------------------------------------------------------------------------------------------ */

void config_init(struct config *c)
{
	*c = (struct config){
		.cache_size = UINT64_C(256) << 20,
		.squash = SQUASH_ROOT,
		.log_level = LOG_LVL_INFO,
		.lease_seconds = 90,
		.busy_poll_us = 30,
		.max_connections = CONFIG_CONNECTIONS,
	};
}

void config_fini(struct config *c)
{
	for (unsigned i = 0; i < c->nlisten; i++)
		free(c->listen[i]);
	for (unsigned i = 0; i < c->nimage; i++) {
		free(c->image[i].path);
		free(c->image[i].name);
		free(c->image[i].allow);
	}
	free(c->listen);
	for (unsigned i = 0; i < c->nparent_dir; i++)
		free(c->parent_dir[i]);
	free(c->parent_dir);
	for (unsigned i = 0; i < c->nrule; i++)
		free(c->rule[i].match);
	free(c->rule);
	free(c->allow);
	free(c->image);
	free(c->state_dir);
	free(c->control);
	free(c->metrics);
	*c = (struct config){0};
}

/* Splits ADDR[:PORT] and [V6][:PORT]; a bare IPv6 address (two colons or more) has no port. */
static int split_address(const char *text, char *host, size_t cap, const char **port)
{
	const char *end = text[0] == '[' ? strchr(text, ']') : NULL;
	const char *colon = strrchr(text, ':');
	const char *from = text;
	size_t n;

	*port = NULL;
	if (text[0] == '[') {
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		from = text + 1;
		n = (size_t)(end - from);
		*port = end[1] ? end + 2 : NULL;
	} else if (colon && strchr(text, ':') == colon) {
		n = (size_t)(colon - text);
		*port = colon + 1;
	} else {
		n = strlen(text);
	}
	if (n == 0 || n >= cap)
		return -EINVAL;
	memcpy(host, from, n);
	host[n] = '\0';
	return 0;
}

int config_add_listen(struct config *c, const char *text, struct why *why)
{
	char host[INET6_ADDRSTRLEN], norm[INET6_ADDRSTRLEN + 16];
	unsigned long port = CONFIG_PORT;
	struct in6_addr a6;
	struct in_addr a4;
	const char *p;
	char *end;
	bool v6;

	if (split_address(text, host, sizeof host, &p) < 0)
		goto bad;
	if (p) {
		port = strtoul(p, &end, 10);
		if (!*p || *end || p[0] == '-' || p[0] == '+' || port > 65535)
			goto bad;
	}
	v6 = inet_pton(AF_INET6, host, &a6) == 1;
	if (!v6 && inet_pton(AF_INET, host, &a4) != 1)
		goto bad;
	snprintf(norm, sizeof norm, v6 ? "[%s]:%lu" : "%s:%lu", host, port);
	if (grow(&c->listen, &c->nlisten, sizeof *c->listen) < 0)
		return -ENOMEM;
	c->listen[c->nlisten - 1] = strdup(norm);
	return c->listen[c->nlisten - 1] ? 0 : -ENOMEM;
bad:
	return why_set(why, -EINVAL, "listen \"%.200s\": expected ADDRESS[:PORT], such as 127.0.0.1:2049 or [::1]:2049",
		       text);
}

int config_add_parent_dir(struct config *c, const char *dir, struct why *why)
{
	struct stat st;
	char **p;

	if (stat(dir, &st) < 0)
		return why_set(why, -errno, "parent folder %s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return why_set(why, -ENOTDIR, "parent folder %s: not a directory", dir);
	/* One more for the NULL at the end. */
	p = realloc(c->parent_dir, (c->nparent_dir + 2) * sizeof *p);
	if (!p)
		return -ENOMEM;
	c->parent_dir = p;
	p[c->nparent_dir + 1] = NULL;
	p[c->nparent_dir] = strdup(dir);
	return p[c->nparent_dir++] ? 0 : -ENOMEM;
}

int config_add_allow(struct config *c, const char *text, struct why *why)
{
	struct cidr net;
	int err;

	if ((err = cidr_parse(text, &net, why)) < 0)
		return err;
	if ((err = grow(&c->allow, &c->nallow, sizeof *c->allow)) < 0)
		return err;
	c->allow[c->nallow - 1] = net;
	return 0;
}

int config_add_image(struct config *c, const char *text, struct why *why)
{
	const char *eq = strrchr(text, '=');
	AUTO(freep) char *path = NULL;

	/* An existing file of that very name wins over IMAGE=NAME. */
	if (!eq || access(text, F_OK) == 0)
		return add_image(c, text, NULL, NULL, why);
	path = strndup(text, (size_t)(eq - text));
	if (!path)
		return -ENOMEM;
	return add_image(c, path, eq + 1, NULL, why);
}

int config_set_cache_size(struct config *c, const char *text, struct why *why)
{
	uint64_t v;

	if (size_parse(text, &v) < 0)
		return why_set(why, -EINVAL, "cache-size \"%.100s\": expected a size such as 256M or 4GiB", text);
	if (v < CACHE_MIN_LIMIT || v > UINT64_C(1) << 46)
		return why_set(why, -EINVAL, "cache-size \"%.100s\": expected at least 4M", text);
	c->cache_size = v;
	return 0;
}

int config_finish(struct config *c, struct why *why)
{
	if (!c->nimage && !c->from_file)
		return why_set(why, -EINVAL, "no image to serve; see vhdnfsd --help");
	for (unsigned i = 0; i < c->nimage; i++) {
		if (!c->image[i].squash_given)
			c->image[i].opts.squash = c->squash;
		c->image[i].opts.read_only |= c->read_only;
	}
	if (!c->nlisten)
		return config_add_listen(c, "127.0.0.1", why);
	return 0;
}
