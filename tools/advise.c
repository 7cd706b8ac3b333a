/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * advise.c - vhdnfs advise: one IO_ADVISE about a file on a server (RFC 7862 §15.5), and what it makes of it; or advice that the
 * server on this machine keeps with files
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tools/control.h"
#include "tools/nfs_client.h"
#include "tools/tool.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"

static const struct {
	const char *name;
	enum IO_ADVISE_type4 hint;
	bool lasts; /* can be kept with a file */
} hints[] = {
	{"normal", IO_ADVISE4_NORMAL, true},
	{"sequential", IO_ADVISE4_SEQUENTIAL, true},
	{"backwards", IO_ADVISE4_SEQUENTIAL_BACKWARDS, true},
	{"random", IO_ADVISE4_RANDOM, true},
	{"willneed", IO_ADVISE4_WILLNEED, false},
	{"opportunistic", IO_ADVISE4_WILLNEED_OPPORTUNISTIC, false},
	{"dontneed", IO_ADVISE4_DONTNEED, false},
	{"noreuse", IO_ADVISE4_NOREUSE, true},
	{"read", IO_ADVISE4_READ, false},
	{"write", IO_ADVISE4_WRITE, false},
};

enum { OPT_OFFSET = 'o', OPT_LENGTH = 'l', OPT_PERSIST = 'p', OPT_CONTROL = 'K', OPT_HINT = 256 };

static int usage(FILE *f)
{
	fputs("usage: vhdnfs advise HINT… [--offset BYTES] [--length BYTES] nfs://HOST[:PORT]/PATH\n"
	      "       vhdnfs advise --persist HINT… [--control PATH] /EXPORT/PATH…\n\n"
	      "Tells the server how a range of a file (all of it, unless said) will be used, and prints which of the "
	      "hints\n"
	      "it follows. HINT is --normal, --sequential, --backwards, --random, --willneed, --opportunistic, "
	      "--dontneed,\n"
	      "--noreuse, --read or --write. Hints that concern an open file end with the command: willneed, "
	      "opportunistic\n"
	      "and dontneed are instructions that stay done.\n\n"
	      "With --persist the server on this machine keeps the hints with the files or folders, as their "
	      "attribute\n"
	      "user.io_advise: --noreuse and one of --sequential, --backwards and --random; --normal takes away what "
	      "was "
	      "kept.\n",
	      f);
	return f == stdout ? TOOL_OK : TOOL_USAGE;
}

static void print_hints(uint32_t word)
{
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
	static const stateid4 anonymous;
	nfs_argop4 op[2] = {{.argop = OP_PUTFH}, nfsc_io_advise(&anonymous, off, len, &word)};
	struct nfsc *n = NULL;
	COMPOUND4res res;
	struct nfs_url u;
	nfs_fh4 fh;
	int err;

	if ((err = nfs_url_parse(url, &u, why)) < 0)
		return err;
	if ((err = nfsc_open(&n, &u, why)) == 0 && (err = nfsc_lookup(n, u.path, &fh, why)) == 0) {
		op[0] = nfsc_putfh(&fh);
		err = nfsc_call(n, op, 2, &res);
		if (!err)
			print_hints(nfsc_followed(&res, 2));
		nfsc_free(&res);
	}
	nfsc_close(n);
	return err;
}

/* ---- --persist ------------------------------------------------------------------------------------------------------------------ */

static int fail(const struct why *why, int err)
{
	fprintf(stderr, "vhdnfs: %s\n", why->line[0] ? why->line : strerror(-err));
	return TOOL_FAILED;
}

static int persist_one(const char *control, const char *path, const char *words)
{
	struct why why = {.line = ""};
	json_t *ask, *out = NULL;
	struct nfs_url url;
	int err;

	if (strncmp(path, "nfs://", 6) == 0) {
		if ((err = nfs_url_parse(path, &url, &why)) < 0)
			return fail(&why, err);
		path = url.path;
	}
	ask = json_pack("{s:s, s:s, s:s}", "do", "persist", "path", path, "advice", words);
	err = ask ? control_ask(control, ask, &out, &why) : -EINVAL;
	json_decref(ask);
	json_decref(out);
	return err ? fail(&why, err) : TOOL_OK;
}

/* Every path is tried. */
static int persist(const char *control, uint32_t word, char **paths, int n)
{
	int worst = TOOL_OK;
	char words[100] = "";

	for (size_t i = 0; i < ARRAY_LEN(hints); i++) {
		if (!(word & 1u << hints[i].hint))
			continue;
		if (!hints[i].lasts) {
			fprintf(stderr,
				"vhdnfs: --%s cannot be kept; expected --sequential, --backwards, --random, --noreuse "
				"or --normal\n",
				hints[i].name);
			return TOOL_USAGE;
		}
		snprintf(words + strlen(words), sizeof words - strlen(words), "%s%s", *words ? "," : "", hints[i].name);
	}
	for (int i = 0; i < n; i++)
		if (persist_one(control, paths[i], words) != TOOL_OK)
			worst = TOOL_FAILED;
	return worst;
}

/* ---- the command ---------------------------------------------------------------------------------------------------------------- */

struct asked {
	uint64_t range[2]; /* offset, length */
	bool ranged, persist;
	const char *control;
	uint32_t word;
};

/* TOOL_OK: go on; else what to end with, -1: with help. */
static int take(struct asked *a, int opt)
{
	if (opt >= OPT_HINT) {
		a->word |= 1u << (opt - OPT_HINT);
	} else if (opt == OPT_PERSIST) {
		a->persist = true;
	} else if (opt == OPT_CONTROL) {
		a->control = optarg;
	} else if (opt == OPT_OFFSET || opt == OPT_LENGTH) {
		a->ranged = true;
		if (size_parse(optarg, &a->range[opt == OPT_LENGTH]) < 0)
			return TOOL_USAGE;
	} else {
		return opt == 'h' ? -1 : TOOL_USAGE;
	}
	return TOOL_OK;
}

int cmd_advise(int argc, char **argv)
{
	struct option options[ARRAY_LEN(hints) + 6] = {
		{"offset", required_argument, NULL, OPT_OFFSET},
		{"length", required_argument, NULL, OPT_LENGTH},
		{"persist", no_argument, NULL, OPT_PERSIST},
		{"control", required_argument, NULL, OPT_CONTROL},
		{"help", no_argument, NULL, 'h'},
	};
	struct asked a = {.ranged = false};
	struct why why = {.line = ""};
	int opt, err;

	for (size_t i = 0; i < ARRAY_LEN(hints); i++)
		options[5 + i] = (struct option){hints[i].name, no_argument, NULL, OPT_HINT + (int)hints[i].hint};
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1)
		if ((err = take(&a, opt)) != TOOL_OK)
			return usage(err < 0 ? stdout : stderr);
	if (optind == argc || !a.word || (!a.persist && argc - optind != 1))
		return usage(stderr);
	if (a.persist ? a.ranged : a.control != NULL) {
		fputs(a.persist ? "vhdnfs: advice is kept for whole files: --persist without --offset and --length\n"
				: "vhdnfs: --control only goes with --persist\n",
		      stderr);
		return TOOL_USAGE;
	}
	if (a.persist)
		return persist(a.control, a.word, argv + optind, argc - optind);
	err = advise(argv[optind], a.word, a.range[0], a.range[1], &why);
	if (!err)
		return TOOL_OK;
	fprintf(stderr, "vhdnfs: %s\n", why.line[0] ? why.line : nfsc_error(err));
	return TOOL_FAILED;
}
