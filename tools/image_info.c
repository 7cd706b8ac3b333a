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
#include "vhd/base/size.h"
#include "vhd/volume/volume.h"

typedef unsigned long long ull;

static const char *type_name(enum vhd_type t)
{
	return t == VHD_FIXED ? "fixed" : t == VHD_DYNAMIC ? "dynamic" : "differencing";
}

static const char *table_name(enum vol_table t)
{
	return t == VOL_MBR ? "mbr" : t == VOL_GPT ? "gpt" : "none";
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------- */

/* Text from an image may be no UTF-8: then it is left out. */
static void put_text(json_t *j, const char *key, const char *text)
{
	json_object_set_new(j, key, json_string(text));
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
		put_text(j, "label", p->label);
		put_uuid(j, "uuid", p->uuid);
		json_array_append_new(vols, j);
	}
	return vols;
}

static json_t *info_json(const char *path, const struct vhd_info *i, const struct vol_list *l)
{
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
	} else {
		put_text(j, "partition-table", table_name(l->table));
		json_object_set_new(j, "volumes", volumes_json(l));
	}
	return j;
}

/* ---- text ------------------------------------------------------------------------------------------------------------------- */

static void parent_text(const struct vhd_info *i)
{
	char uuid[37];

	uuid_unparse_lower(i->parent_uuid, uuid);
	printf("  parent     \"%s\" (%s)\n", i->parent_name, uuid);
	for (unsigned n = 0; n < i->nparents; n++)
		if (i->parent[n].path[0])
			printf("  %s       %s\n", i->parent[n].code, i->parent[n].path);
}

static void volumes_text(const struct vol_list *l)
{
	char size[SIZE_TEXT];

	for (unsigned n = 0; n < l->n; n++) {
		const struct vol_part *p = &l->part[n];
		const char *quote = p->label[0] ? "\"" : "";

		if (p->number)
			printf("  part. %-3u  ", p->number);
		else
			printf("  inside     ");
		printf("%s%s%s%s%s, %s\n", p->fstype[0] ? p->fstype : "nothing known", p->label[0] ? " " : "", quote,
		       p->label, quote, size_text(p->len, size));
	}
	if (!l->n)
		printf("  inside     nothing known\n");
}

static void info_text(const char *path, const struct vhd_info *i, const struct vol_list *l)
{
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
		parent_text(i);
	else
		volumes_text(l);
}

/* ---- info ------------------------------------------------------------------------------------------------------------------- */

static int info_of(const char *path, bool json, struct vol_list *l, struct why *why)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_NOLOCK | VHD_OPEN_CACHED | VHD_OPEN_INFO};
	AUTO(vhd_closep) struct vhd *v = NULL;
	struct vhd_info i;
	json_t *j;
	int err;

	if ((err = vhd_open(&v, path, &oo, why)) < 0)
		return err;
	vhd_info(v, &i);
	memset(l, 0, sizeof *l);
	if (i.type != VHD_DIFF && (err = vol_scan(v, l, why)) < 0)
		return why->line[0] ? err : why_set(why, err, "%s: %s", path, strerror(-err));
	if (!json) {
		info_text(path, &i, l);
		return 0;
	}
	j = info_json(path, &i, l);
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
	return 0;
}

int image_info(int argc, char **argv)
{
	static const char help[] = "info [--json] FILE…";
	AUTO(freep) struct vol_list *l = malloc(sizeof *l);
	bool json = false;
	int opt, rc = TOOL_OK;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt != 'j')
			return image_usage(opt == 'h' ? stdout : stderr, help);
		json = true;
	}
	if (optind == argc)
		return image_usage(stderr, help);
	for (; optind < argc; optind++) {
		struct why why = {.line = ""};
		int err = l ? info_of(argv[optind], json, l, &why) : -ENOMEM;

		if (err)
			rc = image_complain(&why, err);
	}
	return rc;
}
