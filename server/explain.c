/* SPDX-License-Identifier: BSD-3-Clause */
/* explain.c - see explain.h */
#include "server/explain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "advise/stream.h"
#include "server/nfs4/counters.h"
#include "server/nfs4/standing.h"
#include "server/served.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/json.h"

/* ---- what is said of it ---------------------------------------------------------------------------------------------------------- */

static json_t *hints_json(uint32_t mode)
{
	json_t *list = json_array();

	for (unsigned i = 0; hint_name(i); i++)
		if (mode >> i & 1)
			json_array_append_new(list, json_string(hint_name(i)));
	return list;
}

static json_t *runs_json(const struct adv_seen *s)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < FS_RUNS; i++) {
		const struct fs_run r = s->run[i];

		if (r.bytes)
			json_array_append_new(list,
					      json_pack("{s:I, s:I, s:I, s:I, s:I, s:i}", "low", (json_int_t)r.low,
							"high", (json_int_t)r.high, "bytes", (json_int_t)r.bytes,
							"window", (json_int_t)r.window, "step",
							(json_int_t)(r.same >= 2 ? r.step : 0), "direction", r.dir));
	}
	return list;
}

static void add_open(void *arg, const struct st_open_info *i)
{
	json_t *o = json_object();
	char client[24];

	snprintf(client, sizeof client, "%016llx", (unsigned long long)i->clientid);
	json_object_set_new(o, "client", json_string(client));
	json_object_set_new(o, "access", json_integer(i->access));
	json_object_set_new(o, "deny", json_integer(i->deny));
	json_object_set_new(o, "hints", hints_json(i->advice));
	json_array_append_new(arg, o);
}

static int tell(struct nfs_server *nfs, const char *path, struct export *e, struct fs_node *n, json_t **out)
{
	struct st_fhkey key = {.export_id = e->id, .gen = n->gen, .ino = n->ino};
	json_t *o = json_object(), *opens = json_array();
	struct fs_attr attr;
	uint64_t resident = 0;
	struct adv_seen seen;
	uint32_t standing;
	int err = e->fs->ops->getattr(n, 0, &attr);

	if (!err && e->fs->ops->resident)
		err = e->fs->ops->resident(n, &resident);
	if (err) {
		json_decref(o);
		json_decref(opens);
		return err;
	}
	st_each_open(nfs->state, &key, add_open, opens);
	json_object_set_new(o, "path", json_string(path));
	json_object_set_new(o, "export", json_string(e->path));
	json_put(o, "size", attr.size);
	json_put(o, "resident", resident);
	json_object_set_new(o, "hints", hints_json(atomic_load(&n->stream.mode)));
	if (standing_advice(nfs, n, 0, &standing) == 0)
		json_object_set_new(o, "standing", hints_json(standing));
	adv_look(&n->stream, &seen);
	json_object_set_new(o, "runs", runs_json(&seen));
	json_put(o, "ahead", seen.ahead);
	json_put(o, "used", seen.used);
	json_put(o, "wasted", seen.wasted);
	json_put(o, "distrust", seen.distrust);
	json_object_set_new(o, "opens", opens);
	*out = o;
	return 0;
}

int explain(struct nfs_server *nfs, const char *path, json_t **out, struct why *why)
{
	struct served f;
	int err = served_find(nfs->exports, path, &f, why);

	if (err)
		return err;
	err = f.node->type == FS_REG ? tell(nfs, path, f.exp, f.node, out) : -EISDIR;
	served_put(&f);
	if (err == -EISDIR)
		return why_set(why, err, "%.300s: not a regular file", path);
	return err ? why_set(why, err, "%.300s: %s", path, strerror(-err)) : 0;
}
