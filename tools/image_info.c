/* SPDX-License-Identifier: BSD-3-Clause */
/* image_info.c - vhdnfs image info: what an image is, and what is in it; for people, or as JSON */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/plain.h"
#include "vhd/base/size.h"
#include "vhd/volume/volume.h"

typedef unsigned long long ull;

/* What there is to show of a file. */
struct shown {
	struct vhd_info info;
	struct vhd *vhd; /* with its parents; NULL: they are not to be had, and broken says why */
	struct why broken;
	struct vol_list list;
};

static const char *type_name(enum vhd_type t)
{
	return t == VHD_FIXED ? "fixed" : t == VHD_DYNAMIC ? "dynamic" : "differencing";
}

static const char *table_name(enum vol_table t)
{
	return t == VOL_MBR ? "mbr" : t == VOL_GPT ? "gpt" : "none";
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------- */

static void put_text(json_t *j, const char *key, const char *text)
{
	json_object_set_new(j, key, json_text(text));
}

static void put_int(json_t *j, const char *key, uint64_t n)
{
	json_object_set_new(j, key, json_integer((json_int_t)n));
}

static void put_uuid(json_t *j, const char *key, const uuid_t id)
{
	char text[37];

	uuid_unparse_lower(id, text);
	put_text(j, key, text);
}

static json_t *parent_json(const struct vhd_info *i)
{
	json_t *j = json_object(), *paths = json_array();

	put_uuid(j, "uuid", i->parent_uuid);
	put_text(j, "name", i->parent_name);
	if (i->parent_time)
		put_int(j, "modified", (uint64_t)i->parent_time);
	for (unsigned n = 0; n < i->nparents; n++) {
		json_t *p = json_object();

		put_text(p, "locator", i->parent[n].code);
		put_text(p, "path", i->parent[n].path);
		json_array_append_new(paths, p);
	}
	json_object_set_new(j, "paths", paths);
	return j;
}

static json_t *volumes_json(const struct vol_list *l)
{
	json_t *vols = json_array();

	for (unsigned n = 0; n < l->n; n++) {
		const struct vol_part *p = &l->part[n];
		json_t *j = json_object();

		put_int(j, "partition", p->number);
		put_int(j, "start", p->start);
		put_int(j, "size", p->len);
		put_text(j, "fs", p->fstype);
		json_object_set_new(j, "served", json_boolean(strncmp(p->fstype, "ext", 3) == 0));
		put_text(j, "label", p->label);
		put_uuid(j, "uuid", p->uuid);
		json_array_append_new(vols, j);
	}
	return vols;
}

static json_t *chain_json(const struct shown *s)
{
	json_t *a = json_array();

	for (const struct vhd *v = s->vhd ? vhd_parent(s->vhd) : NULL; v; v = vhd_parent(v))
		json_array_append_new(a, json_text(vhd_path(v)));
	return a;
}

static json_t *info_json(const char *path, const struct shown *s)
{
	const struct vhd_info *i = &s->info;
	json_t *j = json_object();

	put_text(j, "file", path);
	put_text(j, "type", type_name(i->type));
	put_int(j, "size", i->size);
	put_int(j, "size-current", i->size_current);
	put_int(j, "size-chs", i->size_chs);
	put_text(j, "size-from", i->size_from == VHD_SIZE_CHS ? "chs" : "current");
	json_object_set_new(j, "geometry", json_pack("[i,i,i]", i->cylinders, i->heads, i->sectors));
	put_int(j, "file-size", i->file_size);
	if (i->type != VHD_FIXED) {
		put_int(j, "block-size", i->block_size);
		put_int(j, "blocks", i->blocks);
		put_int(j, "blocks-allocated", i->blocks_allocated);
		json_object_set_new(j, "batmap", json_boolean(i->batmap));
	}
	put_text(j, "creator", i->creator);
	json_object_set_new(j, "creator-version",
			    json_sprintf("%u.%u", i->creator_version >> 16, i->creator_version & 0xffff));
	put_text(j, "creator-os", i->creator_os);
	json_object_set_new(j, "created", json_integer(i->created));
	put_uuid(j, "uuid", i->uuid);
	json_object_set_new(j, "footer-ok", json_boolean(i->tail_ok));
	json_object_set_new(j, "footer-copy-ok", json_boolean(i->type == VHD_FIXED || i->head_ok));
	json_object_set_new(j, "saved-state", json_boolean(i->saved_state));
	if (i->type == VHD_DIFF) {
		json_object_set_new(j, "parent", parent_json(i));
		json_object_set_new(j, "chain", chain_json(s));
	}
	if (!s->vhd) {
		put_text(j, "chain-error", s->broken.line);
	} else {
		put_text(j, "partition-table", table_name(s->list.table));
		json_object_set_new(j, "volumes", volumes_json(&s->list));
	}
	return j;
}

/* ---- text ------------------------------------------------------------------------------------------------------------------- */

/* Of what the image says, a copy that a terminal may have. */
static const char *plain(const char *text, char *buf, size_t size)
{
	snprintf(buf, size, "%s", text);
	return plain_text(buf, strlen(buf));
}

static void parent_text(const struct shown *s)
{
	const struct vhd_info *i = &s->info;
	char uuid[37], buf[sizeof i->parent_name];

	uuid_unparse_lower(i->parent_uuid, uuid);
	printf("  parent     \"%s\" (%s)\n", plain(i->parent_name, buf, sizeof buf), uuid);
	for (unsigned n = 0; n < i->nparents; n++)
		if (i->parent[n].path[0])
			printf("  %s       %s\n", i->parent[n].code, plain(i->parent[n].path, buf, sizeof buf));
	if (!s->vhd)
		printf("  chain      broken: %s\n", s->broken.line);
	for (const struct vhd *v = s->vhd ? vhd_parent(s->vhd) : NULL; v; v = vhd_parent(v))
		printf("  over       %s\n", vhd_path(v));
}

static void volumes_text(const struct vol_list *l)
{
	char size[SIZE_TEXT], label[sizeof l->part->label];

	for (unsigned n = 0; n < l->n; n++) {
		const struct vol_part *p = &l->part[n];
		const char *quote = p->label[0] ? "\"" : "";

		if (p->number)
			printf("  part. %-3u  ", p->number);
		else
			printf("  inside     ");
		printf("%s%s%s%s%s, %s\n", p->fstype[0] ? p->fstype : "nothing known", p->label[0] ? " " : "", quote,
		       plain(p->label, label, sizeof label), quote, size_text(p->len, size));
	}
	if (!l->n)
		printf("  inside     nothing known\n");
	for (unsigned n = 0, said = 0; n < l->n; n++)
		if (strncmp(l->part[n].fstype, "ext", 3) != 0) {
			printf(said++ ? ", " : "  not served: ");
			if (l->part[n].number)
				printf("p%u (%s)", l->part[n].number, vol_words(&l->part[n]));
			else
				printf("whole disk (%s)", vol_words(&l->part[n]));
		}
	for (unsigned n = 0; n < l->n; n++)
		if (strncmp(l->part[n].fstype, "ext", 3) != 0) {
			printf("\n");
			break;
		}
}

static void info_text(const char *path, const struct shown *s)
{
	const struct vhd_info *i = &s->info;
	char a[SIZE_TEXT], b[SIZE_TEXT], uuid[37], when[40];
	time_t t = (time_t)i->created;
	struct tm tm;

	uuid_unparse_lower(i->uuid, uuid);
	strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&t, &tm));
	printf("%s: %s VHD\n", path, type_name(i->type));
	printf("  size       %s (%llu bytes, by %s)\n", size_text(i->size, a), (ull)i->size,
	       i->size_from == VHD_SIZE_CHS ? "geometry" : "current size");
	if (i->size_current != i->size_chs)
		printf("  sizes      %llu current, %llu by geometry\n", (ull)i->size_current, (ull)i->size_chs);
	printf("  geometry   %u/%u/%u\n", i->cylinders, i->heads, i->sectors);
	printf("  file       %s\n", size_text(i->file_size, a));
	if (i->type != VHD_FIXED)
		printf("  blocks     %u of %u in use, %s each (%s)\n", i->blocks_allocated, i->blocks,
		       size_text(i->block_size, a), size_text((uint64_t)i->blocks_allocated * i->block_size, b));
	printf("  creator    \"%s\" %u.%u%s%s, %s\n", i->creator, i->creator_version >> 16, i->creator_version & 0xffff,
	       i->creator_os[0] ? " on " : "", i->creator_os, when);
	printf("  uuid       %s\n", uuid);
	if (i->batmap)
		printf("  batmap     yes\n");
	if (!i->tail_ok || (i->type != VHD_FIXED && !i->head_ok))
		printf("  damaged    the footer%s\n", i->tail_ok ? "'s copy at the start" : " at the end");
	if (i->saved_state)
		printf("  saved      a virtual machine's saved state belongs to it\n");
	if (i->type == VHD_DIFF)
		parent_text(s);
	if (s->vhd)
		volumes_text(&s->list);
}

/* ---- info ------------------------------------------------------------------------------------------------------------------- */

/* What can be told of one file; a child whose parents are not to be had is told of without what is inside. */
static int look(const char *path, const struct image_parents *p, struct shown *s, struct why *why)
{
	struct vhd_open_opts oo = image_open_opts(p, VHD_OPEN_NOLOCK | VHD_OPEN_CACHED | VHD_OPEN_INFO);
	int err = vhd_open(&s->vhd, path, &oo, why);

	if (err)
		return err;
	vhd_info(s->vhd, &s->info);
	if (s->info.type == VHD_DIFF) {
		vhd_close(TAKE(s->vhd));
		oo.flags &= ~(unsigned)VHD_OPEN_INFO;
		vhd_open(&s->vhd, path, &oo, &s->broken);
	}
	if (s->vhd && (err = vol_scan(s->vhd, &s->list, why)) < 0)
		return why->line[0] ? err : why_set(why, err, "%s: %s", path, strerror(-err));
	return 0;
}

static int info_of(const char *path, const struct image_parents *p, bool json, struct why *why)
{
	AUTO(freep) struct shown *s = calloc(1, sizeof *s);
	json_t *j;
	int err = s ? look(path, p, s, why) : -ENOMEM;

	if (!err && !json) {
		info_text(path, s);
	} else if (!err) {
		j = info_json(path, s);
		json_dumpf(j, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(j);
	}
	if (s)
		vhd_close(s->vhd);
	return err;
}

int image_info(int argc, char **argv)
{
	static const char help[] = "info [--json] FILE…\n\n" IMAGE_PARENT_HELP;
	struct image_parents parents = {.parent = NULL};
	bool json = false;
	int opt, rc = TOOL_OK;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt == 'j')
			json = true;
		else if (!image_parent_option(&parents, opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (optind == argc)
		return image_usage(stderr, help);
	for (; optind < argc; optind++) {
		struct why why = {.line = ""};
		int err = info_of(argv[optind], &parents, json, &why);

		if (err)
			rc = image_complain(&why, err);
	}
	return rc;
}
