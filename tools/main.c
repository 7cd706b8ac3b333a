/* SPDX-License-Identifier: BSD-3-Clause */
/* main.c - vhdnfs: which subcommand */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/tool.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"image", cmd_image, "create, check, convert, resize and chain VHD images"},
	{"ls", cmd_ls, "list a folder on an NFS server"},
	{"cat", cmd_cat, "write files from an NFS server to standard output"},
	{"get", cmd_get, "copy a file, or with -r a folder, from an NFS server"},
	{"put", cmd_put, "write a file, or standard input, to an NFS server"},
	{"stat", cmd_stat, "the attributes of a file, or what the server on this machine does"},
	{"explain", cmd_explain, "how the server on this machine treats a file, and because of whom"},
	{"advise", cmd_advise, "tell an NFS server how a file will be used"},
	{"bench", cmd_bench, "how fast an NFS server answers, and what it costs it"},
};

static void usage(FILE *f)
{
	fputs("usage: vhdnfs COMMAND [ARGUMENT]…\n\n"
	      "VHD images, and files on NFSv4.1 and NFSv4.2 servers, without a mount.\n\n",
	      f);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].help);
	fputs("\n\"vhdnfs COMMAND --help\" says more. Files are named nfs://HOST[:PORT]/PATH.\n\n"
	      "Example: an image with the files of a folder, served and read back:\n"
	      "  vhdnfs image create --fs ext4 --from photos photos.vhd\n"
	      "  vhdnfsd photos.vhd &\n"
	      "  vhdnfs ls -l nfs://localhost/photos\n",
	      f);
}

/* What could not be written was not said: a full disk, a closed pipe. */
static int finish(int rc)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return rc;
	fprintf(stderr, "vhdnfs: standard output: %s\n", strerror(errno ? errno : EIO));
	return rc == TOOL_OK ? TOOL_FAILED : rc;
}

int main(int argc, char **argv)
{
	log_open("vhdnfs");
	if (argc < 2) {
		usage(stderr);
		return TOOL_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		usage(stdout);
		return TOOL_OK;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		puts("vhdnfs " VHDNFS_VERSION);
		return TOOL_OK;
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return finish(commands[i].run(argc - 1, argv + 1));
	fprintf(stderr, "vhdnfs: no command \"%s\"; see vhdnfs --help\n", argv[1]);
	return TOOL_USAGE;
}
