/* SPDX-License-Identifier: BSD-3-Clause */
/* image_snapshot.c - vhdnfs image snapshot: of an image that is served, or of one that nobody uses */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/control.h"
#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"
#include "vhd/image/snapshot.h"

/* -ENOENT: there is no server, or it does not serve the image. */
static int ask_server(const char *control, const char *path, const char *name, char **made, struct why *why)
{
	json_t *ask, *out = NULL, *image = json_string(path);
	int err;

	if (!image) /* no server can be asked for what is not UTF-8 */
		return -ENOENT;
	ask = json_pack("{s:s, s:o, s:s}", "do", "snapshot", "image", image, "name", name);
	err = ask ? control_ask(control, ask, &out, why) : -ENOMEM;

	json_decref(ask);
	if (!err && !(*made = strdup(json_string_value(json_object_get(out, "snapshot")))))
		err = -ENOMEM;
	json_decref(out);
	return err;
}

static int take_alone(const char *path, const char *name, const struct image_parents *p, char **made, struct why *why)
{
	const struct vhd_open_opts oo = image_open_opts(p, VHD_OPEN_WRITE);
	struct vhd *v = NULL;
	int err, closed;

	if ((err = vhd_snapshot_path(path, name, made, why)) < 0 || (err = vhd_open(&v, path, &oo, why)) < 0)
		return err;
	err = vhd_snapshot(&v, *made, &oo, why);
	closed = vhd_close(v);
	return err || !closed ? err : why_set(why, closed, "%s: %s", path, strerror(-closed));
}

int image_snapshot(int argc, char **argv)
{
	static const char help[] =
		"snapshot [--control PATH] [--json] FILE NAME\n\n"
		"What FILE holds at this moment stays in FILE@NAME.vhd (without FILE's own .vhd), and a new\n"
		"differencing image over that takes FILE's place. An image that vhdnfsd serves goes on being\n"
		"served: the server is asked to do it.\n\n"
		"  --control PATH    the control socket of the server (default: /run/vhdnfsd.sock)\n" IMAGE_PARENT_HELP;
	struct image_parents parents = {.parent = NULL};
	AUTO(freep) char *real = NULL, *as = NULL, *made = NULL;
	const char *control = NULL;
	struct why why = {.line = ""};
	bool json = false;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt == 'K')
			control = optarg;
		else if (opt == 'j')
			json = true;
		else if (!image_parent_option(&parents, opt))
			return image_usage(opt == 'h' ? stdout : stderr, help);
	}
	if (argc - optind != 2)
		return image_usage(stderr, help);
	if (!(real = realpath(argv[optind], NULL))) {
		why_set(&why, -errno, "%s: %s", argv[optind], strerror(errno));
		return image_complain(&why, -errno);
	}
	err = vhd_snapshot_path(real, argv[optind + 1], &as, &why);
	if (!err)
		err = ask_server(control, real, argv[optind + 1], &made, &why);
	/* A server that was named has to answer; one that was only looked for need not be there. */
	if (err == -ENOENT && !control)
		err = take_alone(real, argv[optind + 1], &parents, &made, &why);
	if (err)
		return image_complain(&why, err);
	if (json) {
		json_t *j = json_pack("{s:o, s:o}", "image", json_text(real), "snapshot", json_text(made));

		json_dumpf(j, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(j);
	} else {
		printf("%s\n", made);
	}
	return TOOL_OK;
}
