/* SPDX-License-Identifier: BSD-3-Clause */
/* server_stat.c - vhdnfs stat without a URL: what a running server does, once or again and again */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/control.h"
#include "tools/server_stat.h"
#include "tools/tool.h"
#include "vhd/base/size.h"

static json_int_t number(json_t *j, const char *group, const char *name)
{
	return json_integer_value(json_object_get(json_object_get(j, group), name));
}

static const char *bytes(json_int_t n, char *buf)
{
	return size_text(n > 0 ? (uint64_t)n : 0, buf);
}

/* What was added since @was (NULL: since the server's start), per second. */
struct rate {
	json_t *now, *was;
	double seconds;
};

static double per_second(const struct rate *r, const char *group, const char *name)
{
	json_int_t n = number(r->now, group, name) - (r->was ? number(r->was, group, name) : 0);

	return r->seconds > 0 ? (double)n / r->seconds : 0;
}

static double share(json_int_t part, json_int_t of)
{
	return of > 0 ? 100.0 * (double)part / (double)of : 0;
}

static void show_top(const struct rate *r)
{
	json_int_t up = json_integer_value(json_object_get(r->now, "uptime"));

	printf("vhdnfsd %s, up %lld:%02lld:%02lld%s\n", json_string_value(json_object_get(r->now, "version")),
	       (long long)up / 3600, (long long)up / 60 % 60, (long long)up % 60,
	       json_is_true(json_object_get(json_object_get(r->now, "clients"), "grace")) ? ", in the grace period"
											  : "");
	printf("  calls      %.0f/s, %.1f MB/s in, %.1f MB/s out, %lld connections\n", per_second(r, "rpc", "calls"),
	       per_second(r, "rpc", "bytes_in") / 1e6, per_second(r, "rpc", "bytes_out") / 1e6,
	       (long long)number(r->now, "rpc", "connections"));
	printf("  clients    %lld (%lld silent), %lld files open, %lld locks, %lld lost state to others\n",
	       (long long)number(r->now, "clients", "clients"), (long long)number(r->now, "clients", "courtesy"),
	       (long long)number(r->now, "clients", "files"), (long long)number(r->now, "clients", "locks"),
	       (long long)number(r->now, "clients", "revoked"));
}

static json_int_t since(const struct rate *r, const char *group, const char *name)
{
	return number(r->now, group, name) - (r->was ? number(r->was, group, name) : 0);
}

static void show_cache(const struct rate *r)
{
	json_int_t hits = since(r, "cache", "hits"), misses = since(r, "cache", "misses");
	json_int_t used = since(r, "cache", "ahead_used"), wasted = since(r, "cache", "ahead_wasted");
	json_int_t late = since(r, "cache", "ahead_late");
	char a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT];

	printf("  cache      %s of %s, %s dirty; %.1f %% of lookups hit\n", bytes(number(r->now, "cache", "used"), a),
	       bytes(number(r->now, "cache", "limit"), b), bytes(number(r->now, "cache", "dirty"), c),
	       share(hits, hits + misses));
	printf("  images     %.1f MB/s read, %.1f MB/s written\n", per_second(r, "cache", "bytes_read") / 1e6,
	       per_second(r, "cache", "bytes_written") / 1e6);
	printf("  read ahead %s", bytes(since(r, "cache", "ahead"), a));
	if (used + wasted)
		printf("; %s used (%.1f %%), %s in vain, %s late, %lld reads saved the way to the disk", bytes(used, a),
		       share(used, used + wasted), bytes(wasted, b), bytes(late, c),
		       (long long)since(r, "cache", "reads_saved"));
	printf("\n");
	printf("  evicted    %lld: %lld metadata, %lld given up by hints\n", (long long)since(r, "cache", "evictions"),
	       (long long)since(r, "cache", "evicted_meta"), (long long)since(r, "cache", "evicted_given_up"));
}

static void show_pairs(const struct rate *r, const char *group, const char *first, const char *second, const char *word)
{
	json_t *list = json_object_get(r->now, group);
	const char *title = group;

	for (void *it = json_object_iter(list); it; it = json_object_iter_next(list, it)) {
		const char *name = json_object_iter_key(it);
		json_t *v = json_object_iter_value(it);
		json_t *was = r->was ? json_object_get(json_object_get(r->was, group), name) : NULL;
		json_int_t n = json_integer_value(json_object_get(v, first)) -
			       json_integer_value(json_object_get(was, first));
		json_int_t k = json_integer_value(json_object_get(v, second)) -
			       json_integer_value(json_object_get(was, second));

		if (!n)
			continue;
		printf("  %-10s %-24s %12lld  %lld %s\n", title, name, (long long)n, (long long)k, word);
		title = "";
	}
}

static void show_exports(json_t *list)
{
	const char *title = "exports";
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *e = json_array_get(list, i);
		char a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT], d[SIZE_TEXT];

		printf("  %-10s %s: %s, %s, %s of %s free; %s read, %s written\n", title,
		       json_string_value(json_object_get(e, "path")), json_string_value(json_object_get(e, "type")),
		       json_is_true(json_object_get(e, "read_only")) ? "read-only" : "read and write",
		       bytes(json_integer_value(json_object_get(e, "bytes_free")), a),
		       bytes(json_integer_value(json_object_get(e, "bytes_total")), b),
		       bytes(json_integer_value(json_object_get(e, "bytes_read")), c),
		       bytes(json_integer_value(json_object_get(e, "bytes_written")), d));
		title = "";
	}
}

static void show_files(json_t *list)
{
	const char *title = "files";

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *f = json_array_get(list, i);
		const char *hints = json_string_value(json_object_get(f, "hints"));
		char a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT];

		printf("  %-10s %s: %s read, %s ahead, %s of it used%s%s\n", title,
		       json_string_value(json_object_get(f, "path")),
		       bytes(json_integer_value(json_object_get(f, "bytes")), a),
		       bytes(json_integer_value(json_object_get(f, "ahead")), b),
		       bytes(json_integer_value(json_object_get(f, "used")), c), hints && *hints ? "; " : "",
		       hints ? hints : "");
		title = "";
	}
}

static void show(const struct rate *r)
{
	show_top(r);
	show_cache(r);
	show_pairs(r, "operations", "count", "errors", "failed");
	show_pairs(r, "hints", "asked", "followed", "followed");
	show_exports(json_object_get(r->now, "exports"));
	show_files(json_object_get(r->now, "files"));
}

static int once(const struct server_stat *o, json_t **out)
{
	struct why why = {.line = ""};
	json_t *ask = json_pack("{s:s, s:i}", "do", "stat", "files", (int)o->files);
	int err = ask ? control_ask(o->control, ask, out, &why) : -ENOMEM;

	json_decref(ask);
	if (err)
		fprintf(stderr, "vhdnfs: %s\n", why.line[0] ? why.line : strerror(-err));
	return err;
}

static void print_json(json_t *j)
{
	json_object_del(j, "ok");
	json_dumpf(j, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
}

int server_stat(const struct server_stat *o)
{
	json_t *now = NULL, *was = NULL;
	int err;

	while ((err = once(o, &now)) == 0) {
		struct rate r = {.now = now, .was = was, .seconds = was ? o->watch : 0};

		if (!was)
			r.seconds = (double)json_integer_value(json_object_get(now, "uptime"));
		if (o->json) {
			print_json(now);
		} else {
			if (was && isatty(STDOUT_FILENO))
				fputs("\033[H\033[J", stdout);
			show(&r);
			fflush(stdout);
		}
		json_decref(was);
		was = now;
		now = NULL;
		if (!o->watch)
			break;
		sleep(o->watch);
	}
	json_decref(was);
	return err ? TOOL_FAILED : TOOL_OK;
}
