/* SPDX-License-Identifier: BSD-3-Clause */
/* busiest.c - see busiest.h */
#include "server/busiest.h"

#include <string.h>

#include "server/served.h"
#include "vhd/base/checked.h"
#include "vhd/base/json.h"

struct busy {
	struct served file;
	struct adv_seen seen;
	uint32_t mode;
	unsigned opens;
};

struct top {
	unsigned n, most;
	struct busy busy[BUSIEST_MAX]; /* the busiest first */
};

static void add(void *arg, const struct st_file_info *i)
{
	struct busy b = {.file = {.exp = i->pin->exp, .node = i->pin->node}, .opens = i->opens};
	struct top *t = arg;
	unsigned at;

	if (!b.file.node || !b.file.exp)
		return;
	adv_look(&b.file.node->stream, &b.seen);
	b.mode = atomic_load_explicit(&b.file.node->stream.mode, memory_order_relaxed);
	if (t->n == t->most && t->busy[t->n - 1].seen.bytes >= b.seen.bytes)
		return;
	if (t->n == t->most)
		served_put(&t->busy[--t->n].file);
	fs_node_get(b.file.node);
	export_get(b.file.exp);
	for (at = t->n++; at && t->busy[at - 1].seen.bytes < b.seen.bytes; at--)
		t->busy[at] = t->busy[at - 1];
	t->busy[at] = b;
}

static json_t *tell(const struct busy *b)
{
	char path[4096], hints[ADV_WORDS_MAX];

	served_path(&b->file, path, sizeof path);
	adv_print(b->mode, hints);
	return json_pack("{s:o, s:i, s:I, s:I, s:I, s:I, s:s}", "path", json_text(path), "opens", (int)b->opens,
			 "bytes", (json_int_t)b->seen.bytes, "ahead", (json_int_t)b->seen.ahead, "used",
			 (json_int_t)b->seen.used, "wasted", (json_int_t)b->seen.wasted, "hints", hints);
}

json_t *busiest_json(struct nfs_server *nfs, unsigned n)
{
	struct top t = {.most = n < BUSIEST_MAX ? n : BUSIEST_MAX};
	json_t *list = json_array();

	if (t.most)
		st_each_file(nfs->state, add, &t);
	for (unsigned i = 0; i < t.n; i++) {
		json_array_append_new(list, tell(&t.busy[i]));
		served_put(&t.busy[i].file);
	}
	return list;
}
