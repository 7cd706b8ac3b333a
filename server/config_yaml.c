/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config_yaml.c - the configuration file
 *
 * A row for each key says what its value is and where it goes; one walk over libyaml's document follows the rows. So everything that is
 * in the file is looked at, and whatever is wrong is said with its line and its place, such as "exports[0].allow[1]". Rows name fixed
 * depths: a document that refers to itself ends nowhere else.
 *
 * Values that are words, numbers or sizes are understood by the same functions as those of the command line.
 */
#include "server/config_int.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/base/size.h"

#define CONFIG_FILE_MAX (1u << 20)
#define ID_MAX (UINT32_MAX - 1) /* all ones is nobody */

struct walk {
	struct config *c;
	yaml_document_t doc;
	const char *path;
	char *folder; /* relative paths count from it; "" or with a '/' at the end */
	struct why *why;
	char place[128]; /* of the value that is looked at */
};

/* @to: what is being filled, the configuration or an entry of a list. */
typedef int take_fn(struct walk *w, void *to, const char *text);

enum kind { BOOL, NUMBER, ID, WORD, TEXT, LIST, ENTRIES };

struct row {
	const char *key;
	enum kind kind;
	bool required;
	size_t at;                /* BOOL, ID, WORD: of the value in *to */
	enum config_number which; /* NUMBER */
	const char *const *words; /* WORD: the value is the index; ends with NULL */
	take_fn *take;            /* TEXT; each entry of LIST */
	/* After a LIST; may be NULL. */
	int (*check)(struct walk *w, void *to);
	/* Each entry of ENTRIES: a mapping. */
	int (*entry)(struct walk *w, const yaml_node_t *n);
};

/* ---- complaints ------------------------------------------------------------------------------------------------------------ */

/* What was said, behind file, line and place. */
static int complain(const struct walk *w, const yaml_node_t *n, int err)
{
	char at[PATH_MAX + 160];

	snprintf(at, sizeof at, "%s:%zu%s%s", w->path, n->start_mark.line + 1, w->place[0] ? ": " : "", w->place);
	return why_prefix(w->why, err, "%s", at);
}

__attribute__((format(printf, 3, 4))) static int wrong(const struct walk *w, const yaml_node_t *n, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	why_set(w->why, -EINVAL, "%s", text);
	return complain(w, n, -EINVAL);
}

/* Goes one step into the document, and back: the length of the place before. */
__attribute__((format(printf, 2, 3))) static size_t enter(struct walk *w, const char *fmt, ...)
{
	size_t was = strlen(w->place);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->place + was, sizeof w->place - was, fmt, ap);
	va_end(ap);
	return was;
}

static void leave(struct walk *w, size_t was)
{
	w->place[was] = '\0';
}

/* ---- values ---------------------------------------------------------------------------------------------------------------- */

/* One value, without a NUL in it. NULL: it was complained of. */
static const char *text_of(const struct walk *w, const yaml_node_t *n)
{
	if (n->type != YAML_SCALAR_NODE) {
		wrong(w, n, "expected one value");
		return NULL;
	}
	if (strlen((const char *)n->data.scalar.value) != n->data.scalar.length) {
		wrong(w, n, "a value with a NUL character");
		return NULL;
	}
	return (const char *)n->data.scalar.value;
}

static int take_bool(struct walk *w, const struct row *r, const yaml_node_t *n, void *to, const char *text)
{
	int err = config_bool(text, (bool *)((char *)to + r->at), w->why);

	return err ? complain(w, n, err) : 0;
}

static int take_number(struct walk *w, const struct row *r, const yaml_node_t *n, void *to, const char *text)
{
	uint64_t v = 0;
	bool is = number_parse(text, 0, UINT64_MAX, &v);
	int err = config_set_number(to, r->which, is ? v : UINT64_MAX, w->why);

	if (!err)
		return 0;
	why_prefix(w->why, err, is ? "%s" : "\"%.100s\"", text);
	return complain(w, n, err);
}

static int take_id(struct walk *w, const struct row *r, const yaml_node_t *n, void *to, const char *text)
{
	uint64_t v = 0;

	if (!number_parse(text, 0, ID_MAX, &v))
		return wrong(w, n, "\"%.100s\": expected a number from 0 to %u", text, ID_MAX);
	*(uint32_t *)((char *)to + r->at) = (uint32_t)v;
	return 0;
}

static int take_word(struct walk *w, const struct row *r, const yaml_node_t *n, void *to, const char *text)
{
	char choices[200] = "";
	size_t used = 0;
	unsigned i;

	for (i = 0; r->words[i]; i++)
		if (strcmp(r->words[i], text) == 0) {
			*(int *)((char *)to + r->at) = (int)i;
			return 0;
		}
	for (i = 0; r->words[i]; i++)
		used += (size_t)snprintf(choices + used, sizeof choices - used, "%s%s",
					 !i                ? ""
					 : r->words[i + 1] ? ", "
							   : " or ",
					 r->words[i]);
	return wrong(w, n, "\"%.100s\": expected %s", text, choices);
}

static int take_text(struct walk *w, const struct row *r, const yaml_node_t *n, void *to, const char *text)
{
	int err;

	if (!*text)
		return wrong(w, n, "must not be empty");
	err = r->take(w, to, text);
	return err ? complain(w, n, err) : 0;
}

typedef int scalar_fn(struct walk *w, const struct row *r, const yaml_node_t *n, void *to, const char *text);
static scalar_fn *const scalars[] = {
	[BOOL] = take_bool, [NUMBER] = take_number, [ID] = take_id, [WORD] = take_word, [TEXT] = take_text,
};

static int take_entries(struct walk *w, const struct row *r, const yaml_node_t *n, void *to)
{
	int err = 0;

	if (n->type != YAML_SEQUENCE_NODE)
		return wrong(w, n, "expected a list");
	if (r->required && n->data.sequence.items.start == n->data.sequence.items.top)
		return wrong(w, n, "expected at least one entry");
	for (yaml_node_item_t *it = n->data.sequence.items.start; !err && it < n->data.sequence.items.top; it++) {
		const yaml_node_t *e = yaml_document_get_node(&w->doc, *it);
		size_t was = enter(w, "[%d]", (int)(it - n->data.sequence.items.start));
		const char *text;

		if (r->kind == ENTRIES)
			err = r->entry(w, e);
		else
			err = (text = text_of(w, e)) ? take_text(w, r, e, to, text) : -EINVAL;
		leave(w, was);
	}
	if (!err && r->check && (err = r->check(w, to)))
		err = complain(w, n, err);
	return err;
}

static int take_value(struct walk *w, const struct row *r, const yaml_node_t *n, void *to)
{
	const char *text;

	if (r->kind == LIST || r->kind == ENTRIES)
		return take_entries(w, r, n, to);
	text = text_of(w, n);
	return text ? scalars[r->kind](w, r, n, to, text) : -EINVAL;
}

static const struct row *find_row(const struct row *rows, const char *key)
{
	for (; rows->key; rows++)
		if (strcmp(rows->key, key) == 0)
			return rows;
	return NULL;
}

/* The value of a key, and that it stands there once. */
static int find_value(struct walk *w, const yaml_node_t *n, const char *key, const yaml_node_t **out)
{
	*out = NULL;
	for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
		const yaml_node_t *k = yaml_document_get_node(&w->doc, p->key);

		if (k->type != YAML_SCALAR_NODE || strcmp((const char *)k->data.scalar.value, key) != 0)
			continue;
		if (*out)
			return wrong(w, k, "%s stands there twice", key);
		*out = yaml_document_get_node(&w->doc, p->value);
	}
	return 0;
}

/* In the order of the rows: an image's path is known before what belongs to it. */
static int take_mapping(struct walk *w, const struct row *rows, const yaml_node_t *n, void *to)
{
	int err;

	if (n->type != YAML_MAPPING_NODE)
		return wrong(w, n, "expected keys with values");
	for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
		const yaml_node_t *k = yaml_document_get_node(&w->doc, p->key);

		if (k->type != YAML_SCALAR_NODE || !find_row(rows, (const char *)k->data.scalar.value))
			return wrong(w, k, "Unexpected key: %.60s",
				     k->type == YAML_SCALAR_NODE ? (const char *)k->data.scalar.value : "?");
	}
	for (const struct row *r = rows; r->key; r++) {
		const yaml_node_t *value;
		size_t was;

		if ((err = find_value(w, n, r->key, &value)) < 0)
			return err;
		if (!value && r->required)
			return wrong(w, n, "%s is missing", r->key);
		if (!value)
			continue;
		was = enter(w, "%s%s", w->place[0] ? "." : "", r->key);
		if ((err = take_value(w, r, value, to)) < 0)
			return err;
		leave(w, was);
	}
	return 0;
}

/* ---- exports --------------------------------------------------------------------------------------------------------------- */

struct said_export {
	char *image, *name;
	bool read_only;
	int squash; /* < 0: not said */
	uint32_t anon_uid, anon_gid;
	struct cidr *allow;
	unsigned nallow;
};

static int keep(char **where, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*where);
	*where = copy;
	return 0;
}

/* From the file's folder, if it is relative. */
static char *resolve(const struct walk *w, const char *text)
{
	char *out = NULL;

	return asprintf(&out, "%s%s", text[0] == '/' ? "" : w->folder, text) < 0 ? NULL : out;
}

static int take_image(struct walk *w, void *to, const char *text)
{
	struct said_export *e = to;

	e->image = resolve(w, text);
	return e->image ? 0 : -ENOMEM;
}

static int take_name(struct walk *w, void *to, const char *text)
{
	(void)w;
	return keep(&((struct said_export *)to)->name, text);
}

static int take_network(struct walk *w, void *to, const char *text)
{
	struct said_export *e = to;
	struct cidr net;
	int err = cidr_parse(text, &net, w->why);

	if (!err)
		err = config_grow(&e->allow, &e->nallow, sizeof *e->allow);
	if (!err)
		e->allow[e->nallow - 1] = net;
	return err;
}

static const char *const squash_words[] = {"root", "none", "all", NULL};
_Static_assert(SQUASH_ROOT == 0 && SQUASH_NONE == 1 && SQUASH_ALL == 2, "the words are in this order");

static const struct row export_rows[] = {
	{.key = "image", .kind = TEXT, .required = true, .take = take_image},
	{.key = "name", .kind = TEXT, .take = take_name},
	{.key = "read-only", .kind = BOOL, .at = offsetof(struct said_export, read_only)},
	{.key = "squash", .kind = WORD, .at = offsetof(struct said_export, squash), .words = squash_words},
	{.key = "anon-uid", .kind = ID, .at = offsetof(struct said_export, anon_uid)},
	{.key = "anon-gid", .kind = ID, .at = offsetof(struct said_export, anon_gid)},
	{.key = "allow", .kind = LIST, .take = take_network},
	{.key = NULL},
};

static int give_export(struct walk *w, struct said_export *e, size_t line)
{
	struct config_image *im;
	int err = config_new_image(w->c, e->image, e->name, &im, w->why);

	if (err)
		return err;
	im->opts.read_only = e->read_only;
	im->squash_given = e->squash >= 0;
	if (im->squash_given)
		im->opts.squash = (enum squash)e->squash;
	im->opts.anon_uid = e->anon_uid;
	im->opts.anon_gid = e->anon_gid;
	im->opts.nallow = e->nallow;
	im->opts.allow = im->allow = TAKE(e->allow);
	return asprintf(&im->said_at, "%s:%zu", w->path, line) < 0 ? -ENOMEM : 0;
}

static int take_export(struct walk *w, const yaml_node_t *n)
{
	struct said_export e = {.squash = -1, .anon_uid = 65534, .anon_gid = 65534};
	int err = take_mapping(w, export_rows, n, &e);

	if (!err && (err = give_export(w, &e, n->start_mark.line + 1)))
		err = complain(w, n, err);
	free(e.image);
	free(e.name);
	free(e.allow);
	return err;
}

/* ---- rules ------------------------------------------------------------------------------------------------------------------- */

struct said_rule {
	char *match;
	uint32_t hints;
};

static int take_match(struct walk *w, void *to, const char *text)
{
	if (strchr(text, '/'))
		return why_set(w->why, -EINVAL, "\"%.100s\": names have no '/'", text);
	if (strlen(text) > 255)
		return why_set(w->why, -EINVAL, "\"%.60s…\": names have 255 bytes at most", text);
	return keep(&((struct said_rule *)to)->match, text);
}

static int take_hint(struct walk *w, void *to, const char *text)
{
	uint32_t one;
	int err = adv_parse(text, strlen(text), &one, w->why);

	if (!err)
		((struct said_rule *)to)->hints |= one;
	return err;
}

static int check_hints(struct walk *w, void *to)
{
	const char *clash = adv_clash(((struct said_rule *)to)->hints);

	return clash ? why_set(w->why, -EINVAL, "%s", clash) : 0;
}

static const struct row rule_rows[] = {
	{.key = "match", .kind = TEXT, .required = true, .take = take_match},
	{.key = "advise", .kind = LIST, .required = true, .take = take_hint, .check = check_hints},
	{.key = NULL},
};

static int take_rule(struct walk *w, const yaml_node_t *n)
{
	struct said_rule said = {.match = NULL};
	struct config *c = w->c;
	int err = take_mapping(w, rule_rows, n, &said);

	if (!err)
		err = config_grow(&c->rule, &c->nrule, sizeof *c->rule);
	if (err) {
		free(said.match);
		return err;
	}
	c->rule[c->nrule - 1].match = said.match;
	c->rule[c->nrule - 1].hints = said.hints;
	return 0;
}

/* ---- the whole --------------------------------------------------------------------------------------------------------------- */

static int take_listen(struct walk *w, void *to, const char *text)
{
	return config_add_listen(to, text, w->why);
}

static int take_allow(struct walk *w, void *to, const char *text)
{
	return config_add_allow(to, text, w->why);
}

static int take_cache_size(struct walk *w, void *to, const char *text)
{
	return config_set_cache_size(to, text, w->why);
}

static int take_metrics(struct walk *w, void *to, const char *text)
{
	(void)w;
	return keep(&((struct config *)to)->metrics, text);
}

static int take_control(struct walk *w, void *to, const char *text)
{
	AUTO(freep) char *path = strcmp(text, "none") == 0 ? strdup(text) : resolve(w, text);

	return path ? keep(&((struct config *)to)->control, path) : -ENOMEM;
}

static int take_state_dir(struct walk *w, void *to, const char *text)
{
	AUTO(freep) char *path = resolve(w, text);

	return path ? config_set_state_dir(to, path, w->why) : -ENOMEM;
}

static int take_parent_dir(struct walk *w, void *to, const char *text)
{
	AUTO(freep) char *path = resolve(w, text);

	return path ? config_add_parent_dir(to, path, w->why) : -ENOMEM;
}

static const char *const level_words[] = {"error", "warn", "info", "debug", NULL};
_Static_assert(LOG_LVL_ERROR == 0 && LOG_LVL_DEBUG == 3, "the words are in this order");
static const char *const readahead_words[] = {"auto", "hints", "off", NULL};
_Static_assert(READAHEAD_AUTO == 0 && READAHEAD_OFF == 2, "the words are in this order");

#define FLAG(name, field)                                                                                              \
	{                                                                                                              \
		.key = name, .kind = BOOL, .at = offsetof(struct config, field)                                        \
	}
#define COUNT(name, number)                                                                                            \
	{                                                                                                              \
		.key = name, .kind = NUMBER, .which = number                                                           \
	}
#define CHOICE(name, field, list)                                                                                      \
	{                                                                                                              \
		.key = name, .kind = WORD, .at = offsetof(struct config, field), .words = list                         \
	}

static const struct row top_rows[] = {
	{.key = "listen", .kind = LIST, .take = take_listen},
	{.key = "allow", .kind = LIST, .take = take_allow},
	{.key = "cache-size", .kind = TEXT, .take = take_cache_size},
	{.key = "state-dir", .kind = TEXT, .take = take_state_dir},
	{.key = "control", .kind = TEXT, .take = take_control},
	{.key = "metrics", .kind = TEXT, .take = take_metrics},
	{.key = "parent-dirs", .kind = LIST, .take = take_parent_dir},
	FLAG("force-parent", force_parent),
	FLAG("strict-parent", strict_parent),
	FLAG("discard", discard),
	FLAG("detect-zeroes", detect_zeroes),
	FLAG("async", async),
	FLAG("no-journal-ok", no_journal_ok),
	FLAG("read-only", read_only),
	FLAG("snapshots", snapshots),
	FLAG("secure-ports", secure_ports),
	FLAG("plain-filehandles", plain_filehandles),
	CHOICE("squash", squash, squash_words),
	COUNT("threads", CONFIG_THREADS),
	COUNT("workers", CONFIG_WORKERS),
	COUNT("busy-poll", CONFIG_BUSY_POLL),
	COUNT("max-connections", CONFIG_MAX_CONNECTIONS),
	COUNT("lease-seconds", CONFIG_LEASE),
	COUNT("grace-seconds", CONFIG_GRACE),
	CHOICE("log-level", log_level, level_words),
	CHOICE("readahead", readahead, readahead_words),
	{.key = "rules", .kind = ENTRIES, .entry = take_rule},
	{.key = "exports", .kind = ENTRIES, .entry = take_export},
	{.key = NULL},
};

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

/* The first document, and that there is no second. *n NULL: the file has none. */
static int parse(struct walk *w, yaml_parser_t *p, yaml_node_t **n)
{
	yaml_document_t second;
	size_t line = 0;

	if (!yaml_parser_load(p, &w->doc))
		return p->error == YAML_MEMORY_ERROR
			       ? -ENOMEM
			       : why_set(w->why, -EINVAL, "%s:%zu: %s", w->path, p->problem_mark.line + 1,
					 p->problem ? p->problem : "no YAML");
	*n = yaml_document_get_root_node(&w->doc);
	if (!*n)
		return 0;
	if (!yaml_parser_load(p, &second)) {
		line = p->problem_mark.line + 1;
	} else {
		const yaml_node_t *more = yaml_document_get_root_node(&second);

		line = more ? more->start_mark.line + 1 : 0;
		yaml_document_delete(&second);
	}
	if (!line)
		return 0;
	yaml_document_delete(&w->doc);
	return why_set(w->why, -EINVAL, "%s:%zu: expected the end of the file", w->path, line);
}

int config_load(struct config *c, const char *path, struct why *why)
{
	struct walk w = {.c = c, .path = path, .why = why};
	const char *slash = strrchr(path, '/');
	AUTO(freep) char *folder = strndup(path, slash ? (size_t)(slash + 1 - path) : 0);
	AUTO(freep) uint8_t *data = NULL;
	yaml_node_t *root = NULL;
	yaml_parser_t p;
	size_t len = 0;
	int err = folder ? slurp(path, &data, &len, why) : -ENOMEM;

	if (err)
		return err;
	if (!yaml_parser_initialize(&p))
		return -ENOMEM;
	w.folder = folder;
	yaml_parser_set_input_string(&p, data, len);
	err = parse(&w, &p, &root);
	if (!err && root)
		err = take_mapping(&w, top_rows, root, c);
	c->from_file = true;
	if (!err || root)
		yaml_document_delete(&w.doc);
	yaml_parser_delete(&p);
	return err;
}
