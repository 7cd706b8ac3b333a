/* SPDX-License-Identifier: BSD-3-Clause */
/* explain.c - vhdnfs explain: how a running server treats a file, and because of whom */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/control.h"
#include "tools/nfs_client.h"
#include "tools/tool.h"
#include "vhd/base/size.h"

static uint64_t number(json_t *o, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(o, name));
}

static void show_hints(json_t *list)
{
	if (!json_array_size(list))
		fputs("none", stdout);
	for (size_t i = 0; i < json_array_size(list); i++)
		printf("%s%s", i ? ", " : "", json_string_value(json_array_get(list, i)));
}

static void show_runs(json_t *list)
{
	char a[SIZE_TEXT], b[SIZE_TEXT];

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *r = json_array_get(list, i);
		int dir = (int)number(r, "direction");
		long long step = (long long)number(r, "step");

		printf("  reading    at byte %llu, ", (unsigned long long)number(r, dir < 0 ? "low" : "high"));
		if (step)
			printf("in steps of %lld bytes\n", step);
		else
			printf("%s %s, %s ahead\n", size_text(number(r, "bytes"), a),
			       dir > 0   ? "upwards"
			       : dir < 0 ? "downwards"
					 : "here",
			       size_text(number(r, "window"), b));
	}
}

static void show(json_t *o)
{
	static const char *const modes[] = {"nothing", "reading", "writing", "reading and writing"};
	uint64_t size = number(o, "size"), resident = number(o, "resident");
	json_t *opens = json_object_get(o, "opens");
	char a[SIZE_TEXT], b[SIZE_TEXT];

	printf("%s\n", json_string_value(json_object_get(o, "path")));
	printf("  in memory  %s of %s (%.0f %%)\n", size_text(resident, a), size_text(size, b),
	       size ? 100.0 * (double)resident / (double)size : 0.0);
	printf("  hints      ");
	show_hints(json_object_get(o, "hints"));
	if (json_array_size(json_object_get(o, "standing"))) {
		printf("\n  standing   ");
		show_hints(json_object_get(o, "standing"));
	}
	putchar('\n');
	show_runs(json_object_get(o, "runs"));
	printf("  read ahead %s asked for, ", size_text(number(o, "ahead"), a));
	printf("%s used, %s given up%s\n", size_text(number(o, "used"), a), size_text(number(o, "wasted"), b),
	       number(o, "distrust") >= 7 ? "; nothing more: what was read ahead was of no use"
	       : number(o, "distrust")    ? "; less than advised: what was read ahead was of no use lately"
					  : "");
	for (size_t i = 0; i < json_array_size(opens); i++) {
		json_t *p = json_array_get(opens, i);

		printf("  open       by client %s for %s; said: ", json_string_value(json_object_get(p, "client")),
		       modes[number(p, "access") & 3]);
		show_hints(json_object_get(p, "hints"));
		putchar('\n');
	}
	if (!json_array_size(opens))
		puts("  open       by nobody");
}

int cmd_explain(int argc, char **argv)
{
	static const char help[] =
		"usage: vhdnfs explain [--json] [--control PATH] /EXPORT/PATH | nfs://HOST/EXPORT/PATH\n\n"
		"How the server on this machine treats a file: who has it open, which hints they gave and which hold, "
		"how\n"
		"far it is read ahead, and how much of it is in memory.\n";
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{"control", required_argument, NULL, 'K'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	const char *control = NULL, *path;
	struct why why = {.line = ""};
	json_t *ask, *out = NULL;
	struct nfs_url url;
	bool json = false;
	int opt, err = 0;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'j') {
			json = true;
		} else if (opt == 'K') {
			control = optarg;
		} else {
			fputs(help, opt == 'h' ? stdout : stderr);
			return opt == 'h' ? TOOL_OK : TOOL_USAGE;
		}
	}
	if (argc - optind != 1) {
		fputs(help, stderr);
		return TOOL_USAGE;
	}
	path = argv[optind];
	if (strncmp(path, "nfs://", 6) == 0 && (err = nfs_url_parse(path, &url, &why)) == 0)
		path = url.path;
	ask = json_pack("{s:s, s:s}", "do", "explain", "path", path);
	if (!err)
		err = ask ? control_ask(control, ask, &out, &why) : -EINVAL;
	json_decref(ask);
	if (err) {
		fprintf(stderr, "vhdnfs: %s\n", why.line[0] ? why.line : strerror(-err));
		return TOOL_FAILED;
	}
	json_object_del(out, "ok");
	if (json) {
		json_dumpf(out, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		show(out);
	}
	json_decref(out);
	return TOOL_OK;
}
