/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c - vhdnfs image: which subcommand; temporary files */
#include "tools/image.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/volume/volume.h"

const struct option image_options[] = {
	{"fixed", no_argument, NULL, 'f'},
	{"size", required_argument, NULL, 's'},
	{"fs", required_argument, NULL, 't'},
	{"from", required_argument, NULL, 'd'},
	{"exact", no_argument, NULL, 'e'},
	{"json", no_argument, NULL, 'j'},
	{"to", required_argument, NULL, 'o'},
	{"parent", required_argument, NULL, 'p'},
	{"parent-dir", required_argument, NULL, 'D'},
	{"force-parent", no_argument, NULL, 'F'},
	{"strict-parent", no_argument, NULL, 'Q'},
	{"unsafe", no_argument, NULL, 'u'},
	{"repair", no_argument, NULL, 'R'},
	{"azure", no_argument, NULL, 'A'},
	{"size-from", required_argument, NULL, 'S'},
	{"creator", required_argument, NULL, 'C'},
	{"uuid", required_argument, NULL, 'U'},
	{"geometry", required_argument, NULL, 'G'},
	{"timestamp", required_argument, NULL, 'T'},
	{"control", required_argument, NULL, 'K'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static json_t *the_answer;

json_t *image_answer(void)
{
	return the_answer;
}

int image_complain(const struct why *why, int err)
{
	if (the_answer) {
		json_object_set_new(the_answer, "error", json_text(why->line[0] ? why->line : strerror(-err)));
		return TOOL_FAILED;
	}
	fprintf(stderr, "vhdnfs: %s\n", why->line[0] ? why->line : strerror(-err));
	return TOOL_FAILED;
}

int image_usage(FILE *f, const char *text)
{
	fprintf(f, "usage: vhdnfs image %s\n", text);
	return f == stdout ? TOOL_OK : TOOL_USAGE;
}

uint64_t image_azure_size(uint64_t size)
{
	return round_up_u64(max_u64(size, IMAGE_AZURE_MIN), IMAGE_AZURE_UNIT);
}

bool image_parent_option(struct image_parents *p, int opt)
{
	switch (opt) {
	case 'p':
		p->parent = optarg;
		return true;
	case 'D':
		if (p->ndirs + 1 < ARRAY_LEN(p->dir))
			p->dir[p->ndirs++] = optarg;
		return true;
	case 'F':
		p->force = true;
		return true;
	case 'Q':
		p->strict = true;
		return true;
	case 'S':
		if (strcmp(optarg, "chs") == 0)
			p->size_from = VHD_SIZE_CHS;
		else if (strcmp(optarg, "current") == 0)
			p->size_from = VHD_SIZE_CURRENT;
		else
			return strcmp(optarg, "auto") == 0;
		return true;
	default:
		return false;
	}
}

struct vhd_open_opts image_open_opts(const struct image_parents *p, unsigned flags)
{
	return (struct vhd_open_opts){.flags = flags,
				      .size_from = p->size_from,
				      .parent = p->parent,
				      .parent_dirs = p->ndirs ? p->dir : NULL,
				      .force_parent = p->force,
				      .strict_parent = p->strict,
				      .last_written = vol_last_written};
}

/* ---- temporary files ------------------------------------------------------------------------------------------------------- */

static struct {
	char *name, *new; /* new: what vhd_create() calls an image that becomes the file */
} temps[4];

static void remove_temps(int sig)
{
	for (size_t i = 0; i < ARRAY_LEN(temps); i++) {
		if (temps[i].name)
			unlink(temps[i].name);
		if (temps[i].new)
			unlink(temps[i].new);
	}
	/* The default action was put back: now it is taken. */
	raise(sig);
}

static void watch_signals(void)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGXFSZ};
	struct sigaction sa = {.sa_handler = remove_temps, .sa_flags = (int)SA_RESETHAND}, old;

	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
			sigaction(ends[i], &sa, NULL);
}

const char *image_temp(const char *path, const char *suffix)
{
	int pid = (int)getpid();
	char *name, *new;

	for (size_t i = 0; i < ARRAY_LEN(temps); i++) {
		if (temps[i].name)
			continue;
		if (asprintf(&name, "%s.%s-%d", path, suffix, pid) < 0)
			return NULL;
		if (asprintf(&new, "%s.new-%d", name, pid) < 0) {
			free(name);
			return NULL;
		}
		temps[i].name = name;
		temps[i].new = new;
		watch_signals();
		return name;
	}
	return NULL;
}

char *image_real(const char *path, int *err, struct why *why)
{
	char *real = realpath(path, NULL);

	if (!real)
		*err = why_set(why, -errno, "%s: %s", path, strerror(errno));
	return real;
}

void image_temp_done(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(temps); i++)
		if (name && temps[i].name == name) {
			char *gone = TAKE(temps[i].name);

			unlink(gone);
			free(gone);
			free(TAKE(temps[i].new));
		}
}

/* ---- --json ------------------------------------------------------------------------------------------------------------------ */

/* Takes --json out of the arguments. True: it was there. */
static bool take_json(int *argc, char **argv)
{
	bool found = false;
	int n = 1;

	for (int i = 1; i < *argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			found = true;
		else
			argv[n++] = argv[i];
	}
	argv[n] = NULL;
	*argc = n;
	return found;
}

/* A command that answers with one object, when that is wanted. */
static int run_answering(int (*run)(int argc, char **argv), int argc, char **argv)
{
	int rc;

	if (!take_json(&argc, argv))
		return run(argc, argv);
	the_answer = json_pack("{s:s}", "command", argv[0]);
	rc = the_answer ? run(argc, argv) : TOOL_FAILED;
	if (rc == TOOL_USAGE)
		return rc;
	json_object_set_new(the_answer, "ok", json_boolean(rc == TOOL_OK));
	json_dumpf(the_answer, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(the_answer);
	return rc;
}

/* ---- which ----------------------------------------------------------------------------------------------------------------- */

int cmd_image(int argc, char **argv)
{
	static const char help[] =
		"COMMAND …\n\n"
		"  create   a new image: empty, with the files of a folder, or over a parent\n"
		"  info     what an image is and what is in it\n"
		"  check    everything that can be wrong with it, and repair what can be\n"
		"  convert  between raw, fixed and dynamic; of a child, with what its parents hold\n"
		"  compare  do two disks hold the same?\n"
		"  map      which ranges hold data, and where\n"
		"  resize   a larger or a smaller disk\n"
		"  compact  give back the space of what holds only zeros\n"
		"  set      creator, UUID, geometry, time, where the parent is\n"
		"  chain    is every parent of an image there, and the one it was made over? (also: verify-chain)\n"
		"  flatten  a child becomes an image that needs no parent\n"
		"  snapshot keep the contents of this moment in a file of their own; of a served image too\n"
		"  commit   what a child holds goes into its parent\n"
		"  coalesce commit, and the child becomes empty\n"
		"  rebase   give a child another parent\n\n"
		"\"vhdnfs image COMMAND --help\" says more. With --json every command answers in JSON.";
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
		bool lists; /* has a JSON of its own */
	} commands[] = {
		{"create", image_create, false},
		{"info", image_info, true},
		{"check", image_check, true},
		{"convert", image_convert, false},
		{"compare", image_compare, false},
		{"map", image_map, true},
		{"resize", image_resize, false},
		{"compact", image_compact, false},
		{"set", image_set, false},
		{"chain", image_chain, false},
		{"commit", image_commit, false},
		{"flatten", image_flatten, false},
		{"rebase", image_rebase, false},
		{"coalesce", image_coalesce, false},
		{"verify-chain", image_chain, false},
		{"snapshot", image_snapshot, true},
	};

	if (argc > 1)
		for (size_t i = 0; i < ARRAY_LEN(commands); i++)
			if (strcmp(argv[1], commands[i].name) == 0)
				return commands[i].lists ? commands[i].run(argc - 1, argv + 1)
							 : run_answering(commands[i].run, argc - 1, argv + 1);
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
		return image_usage(stdout, help);
	return image_usage(stderr, help);
}
