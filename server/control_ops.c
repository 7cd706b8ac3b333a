/* SPDX-License-Identifier: BSD-3-Clause */
/* control_ops.c - see control_ops.h */
#include "server/control_ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/busiest.h"
#include "server/explain.h"
#include "server/persist.h"
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

/* {"do": "stat", "files": 5} -> see figures.h; with "files", the busiest as well, see busiest.h */
static int op_stat(const struct control_server *s, json_t *ask, json_t **out, struct why *why)
{
	json_int_t files = json_integer_value(json_object_get(ask, "files"));

	if (files < 0 || files > BUSIEST_MAX)
		return why_set(why, -EINVAL, "stat: \"files\" is 0 … %u", BUSIEST_MAX);
	*out = figures_json(&s->figures);
	if (*out && files)
		json_object_set_new(*out, "files", busiest_json(s->figures.nfs, (unsigned)files));
	return *out ? 0 : -ENOMEM;
}

/* {"do": "explain", "path": "/disk/file"} -> see explain.h */
static int op_explain(const struct control_server *s, json_t *ask, json_t **out, struct why *why)
{
	const char *path;

	if (json_unpack(ask, "{s:s}", "path", &path))
		return why_set(why, -EINVAL, "explain: expected \"path\"");
	return explain(s->figures.nfs, path, out, why);
}

/* {"do": "persist", "path": "/disk/file", "advice": "sequential,noreuse"}; see persist.h */
static int op_persist(const struct control_server *s, json_t *ask, json_t **out, struct why *why)
{
	const char *path, *advice;

	(void)out;
	if (json_unpack(ask, "{s:s, s:s}", "path", &path, "advice", &advice))
		return why_set(why, -EINVAL, "persist: expected \"path\" and \"advice\"");
	return persist(s->figures.nfs, path, advice, why);
}

static const struct control_op ops[] = {
	{"explain", op_explain},
	{"persist", op_persist},
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
