/* SPDX-License-Identifier: BSD-3-Clause */
/* advise.c - vhdnfs advise: one IO_ADVISE about a file on a server (RFC 7862 §15.5), and what it makes of it */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/nfs_client.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"

static const struct {
	const char *name;
	enum IO_ADVISE_type4 hint;
} hints[] = {
	{"normal", IO_ADVISE4_NORMAL},
	{"sequential", IO_ADVISE4_SEQUENTIAL},
	{"backwards", IO_ADVISE4_SEQUENTIAL_BACKWARDS},
	{"random", IO_ADVISE4_RANDOM},
	{"willneed", IO_ADVISE4_WILLNEED},
	{"opportunistic", IO_ADVISE4_WILLNEED_OPPORTUNISTIC},
	{"dontneed", IO_ADVISE4_DONTNEED},
	{"noreuse", IO_ADVISE4_NOREUSE},
	{"read", IO_ADVISE4_READ},
	{"write", IO_ADVISE4_WRITE},
};

enum { OPT_OFFSET = 'o', OPT_LENGTH = 'l', OPT_HINT = 256 };

static int usage(FILE *f)
{
	fputs("usage: vhdnfs advise HINT… [--offset BYTES] [--length BYTES] nfs://HOST[:PORT]/PATH\n\n"
	      "Tells the server how a range of a file (all of it, unless said) will be used, and prints which of the "
	      "hints\n"
	      "it follows. HINT is --normal, --sequential, --backwards, --random, --willneed, --opportunistic, "
	      "--dontneed,\n"
	      "--noreuse, --read or --write. Hints that concern an open file end with the command: willneed, "
	      "opportunistic\n"
	      "and dontneed are instructions that stay done.\n",
	      f);
	return f == stdout ? TOOL_OK : TOOL_USAGE;
}

static void print_hints(const bitmap4 *b)
{
	uint32_t word = b->bitmap4_len ? b->bitmap4_val[0] : 0;
	const char *sep = "";

	for (size_t i = 0; i < ARRAY_LEN(hints); i++)
		if (word & 1u << hints[i].hint) {
			printf("%s%s", sep, hints[i].name);
			sep = " ";
		}
	puts(*sep ? "" : "none");
}

static int advise(const char *url, uint32_t word, uint64_t off, uint64_t len, struct why *why)
{
	nfs_argop4 op[2] = {{.argop = OP_PUTFH}, {.argop = OP_IO_ADVISE}};
	IO_ADVISE4args *a = &op[1].nfs_argop4_u.opio_advise;
	struct nfsc *n = NULL;
	COMPOUND4res res;
	struct nfs_url u;
	nfs_fh4 fh;
	int err;

	if ((err = nfs_url_parse(url, &u, why)) < 0)
		return err;
	if ((err = nfsc_open(&n, &u, why)) == 0 && (err = nfsc_lookup(n, u.path, &fh, why)) == 0) {
		op[0] = nfsc_putfh(&fh);
		a->iaa_offset = off;
		a->iaa_count = len;
		a->iaa_hints = (bitmap4){.bitmap4_len = 1, .bitmap4_val = &word};
		err = nfsc_call(n, op, 2, &res);
		if (!err)
			print_hints(&res.resarray.resarray_val[2]
					     .nfs_resop4_u.opio_advise.IO_ADVISE4res_u.resok4.ior_hints);
		nfsc_free(&res);
	}
	nfsc_close(n);
	return err;
}

int cmd_advise(int argc, char **argv)
{
	struct option options[ARRAY_LEN(hints) + 4] = {
		{"offset", required_argument, NULL, OPT_OFFSET},
		{"length", required_argument, NULL, OPT_LENGTH},
		{"help", no_argument, NULL, 'h'},
	};
	uint64_t off = 0, len = 0;
	struct why why = {.line = ""};
	uint32_t word = 0;
	int opt, err;

	for (size_t i = 0; i < ARRAY_LEN(hints); i++)
		options[3 + i] = (struct option){hints[i].name, no_argument, NULL, OPT_HINT + (int)hints[i].hint};
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt >= OPT_HINT)
			word |= 1u << (opt - OPT_HINT);
		else if ((opt != OPT_OFFSET && opt != OPT_LENGTH) ||
			 size_parse(optarg, opt == OPT_OFFSET ? &off : &len) < 0)
			return usage(opt == 'h' ? stdout : stderr);
	}
	if (argc - optind != 1 || !word)
		return usage(stderr);
	err = advise(argv[optind], word, off, len, &why);
	if (!err)
		return TOOL_OK;
	fprintf(stderr, "vhdnfs: %s\n", why.line[0] ? why.line : nfsc_error(err));
	return TOOL_FAILED;
}
