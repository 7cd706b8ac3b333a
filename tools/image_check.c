/* SPDX-License-Identifier: BSD-3-Clause */
/* image_check.c - vhdnfs image check, map: the structures of an image, and where its data is */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"
#include "vhd/image/check.h"

typedef unsigned long long ull;

enum { CHECK_HARMLESS = 3 }; /* exit status: only warnings and leaks */

static const char *const severity[] = {[VHD_ERROR] = "error", [VHD_WARNING] = "warning", [VHD_LEAK] = "leak"};

/* ---- check ------------------------------------------------------------------------------------------------------------------ */

struct report {
	const char *path;
	json_t *list; /* NULL: as text, at once */
};

/* Text is shown at once; JSON is one object, which a check after a repair takes as its "before". */
static void show(json_t **answer)
{
	if (!*answer)
		return;
	json_dumpf(*answer, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(*answer);
	*answer = NULL;
}

static void found(void *arg, const struct vhd_finding *f)
{
	struct report *r = arg;

	if (r->list)
		json_array_append_new(r->list, json_pack("{s:s,s:s,s:I,s:s,s:b}", "severity", severity[f->severity],
							 "what", f->what, "offset", (json_int_t)f->off, "text", f->text,
							 "repairable", (int)f->can_repair));
	else
		printf("%s: %s: %s at byte %llu: %s%s\n", r->path, severity[f->severity], f->what, (ull)f->off, f->text,
		       f->can_repair ? " (can be repaired)" : "");
}

static void summary(const struct report *r, const struct vhd_check_result *c, json_t **answer)
{
	char leaked[SIZE_TEXT];

	if (r->list) {
		json_t *j = json_pack("{s:o,s:i,s:i,s:i,s:i,s:I,s:O}", "file", json_text(r->path), "errors", c->errors,
				      "warnings", c->warnings, "leaks", c->leaks, "repairable", c->repairable,
				      "leaked-bytes", (json_int_t)c->leaked, "findings", r->list);

		if (*answer)
			json_object_set_new(j, "before", *answer);
		*answer = j;
		return;
	}
	if (c->errors || c->warnings || c->leaks)
		printf("%s: %u errors, %u warnings, %s of unused space\n", r->path, c->errors, c->warnings,
		       size_text(c->leaked, leaked));
	else
		printf("%s: nothing wrong\n", r->path);
}

static int check_once(const char *path, bool json, struct vhd_check_result *c, json_t **answer, struct why *why)
{
	struct report r = {.path = path, .list = json ? json_array() : NULL};
	int err = vhd_check(path, found, &r, c, why);

	if (!err)
		summary(&r, c, answer);
	json_decref(r.list);
	return err;
}

/* What Azure asks of an image that is uploaded. */
static int check_azure(const char *path, struct why *why)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_NOLOCK | VHD_OPEN_CACHED | VHD_OPEN_INFO};
	struct vhd_info i;
	struct vhd *v;
	int err = vhd_open(&v, path, &oo, why);

	if (err)
		return err;
	vhd_info(v, &i);
	vhd_close(v);
	if (i.type != VHD_FIXED)
		return why_set(why, -EINVAL, "%s: Azure takes only fixed images", path);
	if (i.size_current % IMAGE_AZURE_UNIT)
		return why_set(why, -EINVAL, "%s: Azure takes only whole MiB, not %llu bytes", path,
			       (ull)i.size_current);
	if (i.size_current < IMAGE_AZURE_MIN)
		return why_set(why, -EINVAL, "%s: Azure takes no disk below 20 MiB, this one has %llu bytes", path,
			       (ull)i.size_current);
	return 0;
}

int image_check(int argc, char **argv)
{
	static const char help[] =
		"check [--repair] [--azure] [--json] FILE\n\n"
		"Looks at every structure of the image, not at what is on the disk. Exit status 0: nothing wrong;\n"
		"1: errors; 3: only warnings and unused space.\n\n"
		"  --repair  afterwards put right what can be: damaged copies of the footer, unused space at the end.\n"
		"            Not while there are errors that could only be guessed at\n"
		"  --azure   would Azure take it? Fixed, whole MiB, at least 20 MiB";
	struct vhd_check_result c;
	bool json = false, repair = false, azure = false;
	struct why why = {.line = ""};
	json_t *answer = NULL;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt == 'j')
			json = true;
		else if (opt == 'R')
			repair = true;
		else if (opt == 'A')
			azure = true;
		else
			return image_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (argc - optind != 1)
		return image_usage(stderr, help);
	err = check_once(argv[optind], json, &c, &answer, &why);
	if (!err && repair && c.repairable) {
		fprintf(stderr, "vhdnfs: %s: repairing\n", argv[optind]);
		if ((err = vhd_repair(argv[optind], &why)) == 0)
			err = check_once(argv[optind], json, &c, &answer, &why);
	}
	show(&answer);
	if (!err && azure)
		err = check_azure(argv[optind], &why);
	if (err)
		return image_complain(&why, err);
	return c.errors ? TOOL_FAILED : c.warnings || c.leaks ? CHECK_HARMLESS : TOOL_OK;
}

/* ---- map -------------------------------------------------------------------------------------------------------------------- */

static void show_run(json_t *list, uint64_t off, const struct vhd_run *run)
{
	if (list)
		json_array_append_new(list, run->hole ? json_pack("{s:I,s:I,s:b}", "start", (json_int_t)off, "length",
								  (json_int_t)run->len, "data", 0)
						      : json_pack("{s:I,s:I,s:b,s:i,s:I}", "start", (json_int_t)off,
								  "length", (json_int_t)run->len, "data", 1, "layer",
								  run->layer, "offset", (json_int_t)run->off));
	else if (run->hole)
		printf("%16llu %16llu  zero\n", (ull)off, (ull)run->len);
	else
		printf("%16llu %16llu  data  %u %16llu\n", (ull)off, (ull)run->len, run->layer, (ull)run->off);
}

/* As vhd_map(), from @off on; holes of the files count too, so that a sparse fixed image shows them. */
static int map_from(struct vhd *v, uint64_t off, struct vhd_run *run)
{
	uint64_t data, end;
	int err = vhd_next_data(v, off, &data, &end);

	if (err)
		return err;
	if (data > off) {
		*run = (struct vhd_run){.len = data - off, .hole = true};
		return 0;
	}
	err = vhd_map(v, off, vhd_size(v) - off, run);
	run->len = min_u64(run->len, end - off);
	return err;
}

static int map(struct vhd *v, json_t *list)
{
	struct vhd_run run, next;
	uint64_t off = 0;
	int err = map_from(v, 0, &run);

	if (!list)
		printf("%16s %16s        layer %12s\n", "start", "length", "in the file");
	/* Neighbours that continue each other are one line. */
	while (!err && off + run.len < vhd_size(v)) {
		uint64_t at = off + run.len;

		if ((err = map_from(v, at, &next)) < 0)
			break;
		if (next.hole == run.hole && (run.hole || (next.layer == run.layer && next.off == run.off + run.len))) {
			run.len += next.len;
		} else {
			show_run(list, off, &run);
			off = at;
			run = next;
		}
	}
	if (!err)
		show_run(list, off, &run);
	return err;
}

int image_map(int argc, char **argv)
{
	static const char help[] =
		"map [--json] FILE\n\n"
		"Ranges of the disk in bytes; where each is in the file of its layer: 0 the image itself, 1 its\n"
		"parent, …\n\n" IMAGE_PARENT_HELP;
	struct image_parents parents = {.parent = NULL};
	struct vhd_open_opts oo;
	struct why why = {.line = ""};
	json_t *list = NULL;
	bool json = false;
	struct vhd *v = NULL;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt == 'j')
			json = true;
		else if (!image_parent_option(&parents, opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (argc - optind != 1)
		return image_usage(stderr, help);
	oo = image_open_opts(&parents, VHD_OPEN_NOLOCK | VHD_OPEN_CACHED);
	err = vhd_open(&v, argv[optind], &oo, &why);
	if (!err) {
		list = json ? json_array() : NULL;
		if ((err = map(v, list)) < 0)
			why_set(&why, err, "%s: %s", argv[optind], strerror(-err));
		else if (list)
			json_dumpf(list, stdout, JSON_INDENT(2)), putchar('\n');
		json_decref(list);
	}
	vhd_close(v);
	return err ? image_complain(&why, err) : TOOL_OK;
}
