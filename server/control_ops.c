/* SPDX-License-Identifier: BSD-3-Clause */
/* control_ops.c - see control_ops.h */
#include "server/control_ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/cleanup.h"

/* {"do": "snapshot", "image": "/real/path.vhd", "name": "monday"} -> {"snapshot": "/real/path@monday.vhd"} */
static int op_snapshot(const struct control_server *s, json_t *ask, json_t **out, struct why *why)
{
	AUTO(freep) char *made = NULL;
	const char *image, *name;
	int err;

	if (json_unpack(ask, "{s:s, s:s}", "image", &image, "name", &name))
		return why_set(why, -EINVAL, "snapshot: expected \"image\" and \"name\"");
	err = images_snapshot(s->images, image, name, &made, why);
	if (!err)
		*out = json_pack("{s:s}", "snapshot", made);
	return err;
}

static json_t *cache_json(struct cache *c)
{
	struct cache_stats st;

	cache_stats(c, &st);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "limit", (json_int_t)st.limit, "used",
			 (json_int_t)st.used, "dirty", (json_int_t)st.dirty, "hits", (json_int_t)st.hits, "misses",
			 (json_int_t)st.misses, "evictions", (json_int_t)st.evictions, "writebacks",
			 (json_int_t)st.writebacks, "throttled", (json_int_t)st.throttled, "bytes_read",
			 (json_int_t)st.bytes_read, "bytes_written", (json_int_t)st.bytes_written);
}

static json_t *clients_json(struct st *s)
{
	struct st_stats st;

	st_get_stats(s, &st);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "clients", (json_int_t)st.clients,
			 "unconfirmed", (json_int_t)st.unconfirmed, "courtesy", (json_int_t)st.courtesy, "sessions",
			 (json_int_t)st.sessions, "slots", (json_int_t)st.slots, "opens", (json_int_t)st.opens, "locks",
			 (json_int_t)st.ranges, "files", (json_int_t)st.files, "replays", (json_int_t)st.replays,
			 "revoked", (json_int_t)st.expired, "grace", st_in_grace(s));
}

static bool add_export(void *arg, const struct export *e)
{
	struct fs_statfs st = {0};

	if (e->pseudo)
		return true;
	if (e->fs->ops->statfs)
		e->fs->ops->statfs(e->fs, &st);
	json_array_append_new(arg, json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I}", "path", e->path, "type",
					     e->fs->type_name, "read_only", e->read_only, "bytes_total",
					     (json_int_t)st.bytes_total, "bytes_free", (json_int_t)st.bytes_free,
					     "files_total", (json_int_t)st.files_total, "files_free",
					     (json_int_t)st.files_free));
	return true;
}

/* {"do": "stat"} -> {"version", "cache": {…}, "clients": {…}, "exports": […]}; sizes in bytes, counts since the start */
static int op_stat(const struct control_server *s, json_t *ask, json_t **out, struct why *why)
{
	json_t *exports = json_array();

	(void)ask;
	(void)why;
	exports_each(s->nfs->exports, add_export, exports);
	*out = json_pack("{s:s, s:o, s:o, s:o}", "version", VHDNFS_VERSION, "cache", cache_json(s->cache), "clients",
			 clients_json(s->nfs->state), "exports", exports);
	return *out ? 0 : -ENOMEM;
}

static const struct control_op ops[] = {
	{"snapshot", op_snapshot},
	{"stat", op_stat},
};

const struct control_op *control_op_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(ops); i++)
		if (strcmp(ops[i].name, name) == 0)
			return &ops[i];
	return NULL;
}
