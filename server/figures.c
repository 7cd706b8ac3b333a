/* SPDX-License-Identifier: BSD-3-Clause */
/* figures.c - see figures.h */
#include "server/figures.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/nfs4/counters.h"
#include "server/nfs4/ops.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/json.h"
#include "vhd/io/hio_model.h"

static json_t *cache_json(struct cache *c)
{
	json_t *o = json_object();
	struct cache_stats st;

	cache_stats(c, &st);
	json_put(o, "limit", st.limit);
	json_put(o, "used", st.used);
	json_put(o, "dirty", st.dirty);
	json_put(o, "hits", st.hits);
	json_put(o, "misses", st.misses);
	json_put(o, "evictions", st.evictions);
	json_put(o, "writebacks", st.writebacks);
	json_put(o, "throttled", st.throttled);
	json_put(o, "bytes_read", st.bytes_read);
	json_put(o, "bytes_written", st.bytes_written);
	json_put(o, "ahead", st.ahead);
	json_put(o, "ahead_used", st.ahead_used);
	json_put(o, "ahead_wasted", st.ahead_wasted);
	json_put(o, "ahead_dropped", st.ahead_dropped);
	json_put(o, "ahead_late", st.ahead_late);
	json_put(o, "ahead_canceled", st.ahead_canceled);
	json_put(o, "ahead_waiting", st.ahead_waiting);
	json_put(o, "reads_saved", st.reads_saved);
	json_put(o, "hits_meta", st.hits_meta);
	json_put(o, "evicted_meta", st.evicted_meta);
	json_put(o, "evicted_given_up", st.evicted_given_up);
	json_put(o, "young", st.young);
	json_put(o, "old", st.old);
	json_put(o, "given_up", st.given_up);
	return o;
}

/* Of a disk that is modelled (hio_model.h). */
static json_t *disk_json(const struct hio_model_figures *f)
{
	json_t *o = json_object();

	json_object_set_new(o, "name", json_string(f->name));
	json_put(o, "transfers", f->transfers);
	json_put(o, "bytes_read", f->bytes_read);
	json_put(o, "bytes_written", f->bytes_written);
	json_put(o, "seeks", f->seeks);
	json_put(o, "busy_us", f->busy_us);
	return o;
}

static json_t *clients_json(struct st *s)
{
	json_t *o = json_object();
	struct st_stats st;

	st_get_stats(s, &st);
	json_put(o, "clients", st.clients);
	json_put(o, "unconfirmed", st.unconfirmed);
	json_put(o, "courtesy", st.courtesy);
	json_put(o, "sessions", st.sessions);
	json_put(o, "slots", st.slots);
	json_put(o, "opens", st.opens);
	json_put(o, "locks", st.ranges);
	json_put(o, "files", st.files);
	json_put(o, "replays", st.replays);
	json_put(o, "revoked", st.expired);
	json_object_set_new(o, "grace", json_boolean(st_in_grace(s)));
	return o;
}

static json_t *rpc_json(struct rpc_server *r)
{
	json_t *o = json_object();
	struct rpc_stats st;

	rpc_server_stats(r, &st);
	json_put(o, "connections", st.conns);
	json_put(o, "accepted", st.conns_total);
	json_put(o, "calls", st.calls);
	json_put(o, "parked", st.parked);
	json_put(o, "bytes_in", st.bytes_in);
	json_put(o, "bytes_out", st.bytes_out);
	json_put(o, "bad_records", st.bad_records);
	json_put(o, "refused", st.refused);
	json_put(o, "memory", st.memory);
	return o;
}

static json_t *two(const char *a, uint64_t x, const char *b, uint64_t y)
{
	json_t *o = json_object();

	json_put(o, a, x);
	json_put(o, b, y);
	return o;
}

static json_t *ops_json(const struct nfs_counts *n)
{
	json_t *o = json_object();

	for (uint32_t i = 0; i < COUNT_OPS; i++) {
		const struct op_desc *op = n->ops[i] ? op_find(i, 2) : NULL;

		if (op)
			json_object_set_new(o, op->name, two("count", n->ops[i], "errors", n->errors[i]));
	}
	return o;
}

static json_t *hints_json(const struct nfs_counts *n)
{
	json_t *o = json_object();

	for (unsigned i = 0; hint_name(i); i++)
		if (n->hints_asked[i])
			json_object_set_new(o, hint_name(i),
					    two("asked", n->hints_asked[i], "followed", n->hints_followed[i]));
	return o;
}

static bool add_export(void *arg, const struct export *e)
{
	struct fs_statfs st = {0};
	json_t *o;

	if (e->pseudo)
		return true;
	if (e->fs->ops->statfs)
		e->fs->ops->statfs(e->fs, &st);
	o = json_pack("{s:o, s:s, s:b}", "path", json_text(e->path), "type", e->fs->type_name, "read_only",
		      e->read_only);
	json_put(o, "bytes_total", st.bytes_total);
	json_put(o, "bytes_free", st.bytes_free);
	json_put(o, "files_total", st.files_total);
	json_put(o, "files_free", st.files_free);
	if (e->fs->ops->figures) {
		struct cache_dev_stats dev;

		e->fs->ops->figures(e->fs, &dev);
		json_put(o, "bytes_read", dev.bytes_read);
		json_put(o, "bytes_written", dev.bytes_written);
		json_put(o, "ahead_waiting", dev.ahead_waiting);
	}
	json_array_append_new(arg, o);
	return true;
}

json_t *figures_json(const struct figures_of *f)
{
	json_t *exports = json_array(), *out;
	struct hio_model_figures disk;
	struct nfs_counts n;

	nfs_counts(&n);
	exports_each(f->nfs->exports, add_export, exports);
	out = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "version", VHDNFS_VERSION, "rpc", rpc_json(f->rpc),
			"clients", clients_json(f->nfs->state), "cache", cache_json(f->cache), "operations",
			ops_json(&n), "hints", hints_json(&n), "exports", exports);
	hio_model_figures(&disk);
	if (out && disk.name)
		json_object_set_new(out, "disk_model", disk_json(&disk));
	if (out)
		json_put(out, "uptime", (uint64_t)(time(NULL) - f->started));
	return out;
}

/* ---- Prometheus ------------------------------------------------------------------------------------------------------------------ */

/* One line for each number of an object; what only grows is a counter. */
struct family {
	const char *object, *prefix;
	const char *const *gauges; /* NULL at the end */
};

static const char *const rpc_gauges[] = {"connections", "memory", NULL};
static const char *const client_gauges[] = {"clients", "unconfirmed", "courtesy", "sessions", "slots",
					    "opens",   "locks",       "files",    "grace",    NULL};
static const char *const cache_gauges[] = {"limit", "used", "dirty", "ahead_waiting", "young", "old", "given_up", NULL};

static const struct family families[] = {
	{"rpc", "vhdnfs_rpc", rpc_gauges},
	{"clients", "vhdnfs_state", client_gauges},
	{"cache", "vhdnfs_cache", cache_gauges},
};

static bool is_gauge(const char *const *list, const char *name)
{
	while (*list && strcmp(*list, name) != 0)
		list++;
	return *list;
}

static void put_family(FILE *out, const struct family *fam, json_t *o)
{
	for (void *it = json_object_iter(o); it; it = json_object_iter_next(o, it)) {
		const char *name = json_object_iter_key(it);
		json_t *v = json_object_iter_value(it);
		bool gauge = is_gauge(fam->gauges, name);

		fprintf(out, "# TYPE %s_%s%s %s\n%s_%s%s %lld\n", fam->prefix, name, gauge ? "" : "_total",
			gauge ? "gauge" : "counter", fam->prefix, name, gauge ? "" : "_total",
			json_is_boolean(v) ? (long long)json_is_true(v) : (long long)json_integer_value(v));
	}
}

/* Objects of objects: the name is a label. */
static void put_labelled(FILE *out, json_t *o, const char *metric, const char *label, const char *member)
{
	fprintf(out, "# TYPE %s counter\n", metric);
	for (void *it = json_object_iter(o); it; it = json_object_iter_next(o, it))
		fprintf(out, "%s{%s=\"%s\"} %lld\n", metric, label, json_object_iter_key(it),
			(long long)json_integer_value(json_object_get(json_object_iter_value(it), member)));
}

/* Paths may hold what a label must not. */
static void put_label(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		if (*text == '\n')
			fputs("\\n", out);
		else
			fputc(*text, out);
	}
}

static void put_exports(FILE *out, json_t *list, const char *member, const char *type)
{
	const char *total = strcmp(type, "counter") == 0 ? "_total" : "";

	fprintf(out, "# TYPE vhdnfs_export_%s%s %s\n", member, total, type);
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *e = json_array_get(list, i);
		fprintf(out, "vhdnfs_export_%s%s{path=\"", member, total);
		put_label(out, json_string_value(json_object_get(e, "path")));
		fprintf(out, "\"} %lld\n", (long long)json_integer_value(json_object_get(e, member)));
	}
}

char *figures_text(const struct figures_of *f)
{
	json_t *j = figures_json(f);
	char *text = NULL;
	size_t len = 0;
	FILE *out = j ? open_memstream(&text, &len) : NULL;

	if (!out) {
		json_decref(j);
		return NULL;
	}
	fprintf(out, "# TYPE vhdnfs_uptime_seconds gauge\nvhdnfs_uptime_seconds %lld\n",
		(long long)json_integer_value(json_object_get(j, "uptime")));
	for (size_t i = 0; i < ARRAY_LEN(families); i++)
		put_family(out, &families[i], json_object_get(j, families[i].object));
	put_labelled(out, json_object_get(j, "operations"), "vhdnfs_operations_total", "op", "count");
	put_labelled(out, json_object_get(j, "operations"), "vhdnfs_operation_errors_total", "op", "errors");
	put_labelled(out, json_object_get(j, "hints"), "vhdnfs_hints_asked_total", "hint", "asked");
	put_labelled(out, json_object_get(j, "hints"), "vhdnfs_hints_followed_total", "hint", "followed");
	put_exports(out, json_object_get(j, "exports"), "bytes_total", "gauge");
	put_exports(out, json_object_get(j, "exports"), "bytes_free", "gauge");
	put_exports(out, json_object_get(j, "exports"), "ahead_waiting", "gauge");
	put_exports(out, json_object_get(j, "exports"), "bytes_read", "counter");
	put_exports(out, json_object_get(j, "exports"), "bytes_written", "counter");
	json_decref(j);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
