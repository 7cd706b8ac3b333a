/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_report.c - what `vhdnfs bench hints` found: as a table, as JSON, as a page with plots */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "tools/bench_hints.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"

static const char *const variant_names[VARIANTS] = {"none", "detected", "advised", "wrong"};

static double rate(const struct measured *m)
{
	return m->done && m->seconds > 0 ? (double)m->bytes / m->seconds / 1e6 : 0;
}

static double times(const struct result *r, enum variant v)
{
	return rate(&r->v[V_NONE]) > 0 ? rate(&r->v[v]) / rate(&r->v[V_NONE]) : 0;
}

/* ---- the table -------------------------------------------------------------------------------------------------------------------- */

void report_table(const struct report *r)
{
	char a[SIZE_TEXT], b[SIZE_TEXT];

	printf("disk %s, cache %s, file %s; MB/s as the client sees them, and times what they are without reading "
	       "ahead\n\n",
	       r->disk, size_text(r->cache, a), size_text(r->big, b));
	printf("%-10s %10s %18s %18s %18s\n", "", "none", "detected", "advised", "wrong advice");
	for (unsigned i = 0; i < r->n; i++) {
		const struct result *x = &r->r[i];

		printf("%-10s %10.2f", x->name, rate(&x->v[V_NONE]));
		for (enum variant v = V_DETECT; v < VARIANTS; v++)
			printf(" %9.2f %6.2f x", rate(&x->v[v]), times(x, v));
		putchar('\n');
	}
	puts("");
	printf("%-10s %-9s %9s %9s %10s %10s %10s %8s %8s\n", "", "", "seconds", "first 10M", "disk read", "ahead",
	       "unused", "seeks", "kept");
	for (unsigned i = 0; i < r->n; i++)
		for (enum variant v = V_NONE; v < VARIANTS; v++) {
			const struct measured *m = &r->r[i].v[v];
			char c[SIZE_TEXT];

			printf("%-10s %-9s %9.3f", v ? "" : r->r[i].name, variant_names[v], m->seconds);
			if (m->first_s > 0)
				printf(" %9.3f", m->first_s);
			else
				printf(" %9s", "");
			printf(" %10s %10s %10s %8llu", size_text(m->disk_bytes, a), size_text(m->ahead, b),
			       size_text(m->wasted, c), (unsigned long long)m->seeks);
			if (m->kept >= 0)
				printf(" %6.1f %%", 100 * m->kept);
			putchar('\n');
		}
	puts("");
	for (unsigned i = 0; i < r->n; i++)
		printf("%-10s %s; advised %s; wrong: %s\n", r->r[i].name, r->r[i].what, r->r[i].right, r->r[i].wrong);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------------------------- */

static json_t *measured_json(const struct measured *m)
{
	json_t *o = json_pack("{s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "seconds", m->seconds, "bytes",
			      (json_int_t)m->bytes, "disk_bytes", (json_int_t)m->disk_bytes, "seeks",
			      (json_int_t)m->seeks, "ahead", (json_int_t)m->ahead, "ahead_used", (json_int_t)m->used,
			      "ahead_unused", (json_int_t)m->wasted, "late", (json_int_t)m->late, "transfers",
			      (json_int_t)m->transfers, "disk_busy_seconds", (double)m->busy_us / 1e6);

	if (m->first_s > 0)
		json_object_set_new(o, "first_10m_seconds", json_real(m->first_s));
	if (m->kept >= 0)
		json_object_set_new(o, "kept", json_real(m->kept));
	return o;
}

void report_json(const struct report *r)
{
	json_t *list = json_array(), *top;

	for (unsigned i = 0; i < r->n; i++) {
		json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "workload", r->r[i].name, "what", r->r[i].what, "right",
				      r->r[i].right, "wrong_advice", r->r[i].wrong);

		for (enum variant v = V_NONE; v < VARIANTS; v++)
			json_object_set_new(o, variant_names[v], measured_json(&r->r[i].v[v]));
		json_array_append_new(list, o);
	}
	top = json_pack("{s:s, s:I, s:I, s:o}", "disk", r->disk, "cache", (json_int_t)r->cache, "file",
			(json_int_t)r->big, "workloads", list);
	json_dumpf(top, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(top);
}

/* ---- the page ---------------------------------------------------------------------------------------------------------------------- */

static const char head[] =
	"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>What hints bring</title>\n<style>\n"
	"body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}\n"
	"table{border-collapse:collapse}td,th{padding:.2em "
	".8em;text-align:right}td:first-child,th:first-child{text-align:left}\n"
	"tr:nth-child(even){background:#f4f4f4}svg{display:block;margin:.5em 0}h2{margin-bottom:0}\n"
	"p.w{margin:.2em 0;color:#555}\n</style></head><body>\n<h1>What hints bring</h1>\n";

static const char *const colours[VARIANTS] = {"#999999", "#4477aa", "#228833", "#cc6677"};

static void bars(FILE *f, const struct result *x)
{
	double most = 0;

	for (enum variant v = V_NONE; v < VARIANTS; v++)
		most = rate(&x->v[v]) > most ? rate(&x->v[v]) : most;
	fprintf(f, "<svg width=\"720\" height=\"%u\" role=\"img\">\n", VARIANTS * 24u);
	for (enum variant v = V_NONE; v < VARIANTS; v++) {
		double width = most > 0 ? 420 * rate(&x->v[v]) / most : 0;
		unsigned y = (unsigned)v * 24;

		fprintf(f,
			"<text x=\"0\" y=\"%u\" font-size=\"14\">%s</text><rect x=\"80\" y=\"%u\" width=\"%.1f\" "
			"height=\"18\" "
			"fill=\"%s\"/><text x=\"%.1f\" y=\"%u\" font-size=\"14\">%.2f MB/s, %.2f x",
			y + 16, variant_names[v], y + 3, width, colours[v], 88 + width, y + 16, rate(&x->v[v]),
			times(x, v));
		if (x->v[v].kept >= 0)
			fprintf(f, "; %.0f %% kept", 100 * x->v[v].kept);
		fputs("</text>\n", f);
	}
	fputs("</svg>\n", f);
}

int report_html(const struct report *r, const char *path)
{
	char a[SIZE_TEXT], b[SIZE_TEXT], day[32];
	time_t now = time(NULL);
	FILE *f = fopen(path, "w");

	if (!f)
		return -errno;
	strftime(day, sizeof day, "%Y-%m-%d", gmtime(&now));
	fputs(head, f);
	fprintf(f,
		"<p>vhdnfs %s, %s. Disk: %s. Cache %s, file %s. Reads one at a time; each bar on a server of its own "
		"that has nothing in "
		"memory. <i>none</i>: nothing is read ahead; <i>detected</i>: what the server finds out by itself; "
		"<i>advised</i> and "
		"<i>wrong</i>: what the client says.</p>\n",
		VHDNFS_VERSION, day, r->disk, size_text(r->cache, a), size_text(r->big, b));
	for (unsigned i = 0; i < r->n; i++) {
		const struct result *x = &r->r[i];

		fprintf(f, "<h2>%s</h2>\n<p class=\"w\">%s. Advised: %s. Wrong: %s.</p>\n", x->name, x->what, x->right,
			x->wrong);
		bars(f, x);
	}
	fputs("<h2>Figures</h2>\n<table><tr><th></th><th></th><th>seconds</th><th>disk read</th><th>read "
	      "ahead</th><th>of that "
	      "unused</th><th>seeks</th></tr>\n",
	      f);
	for (unsigned i = 0; i < r->n; i++)
		for (enum variant v = V_NONE; v < VARIANTS; v++) {
			const struct measured *m = &r->r[i].v[v];
			char c[SIZE_TEXT];

			fprintf(f,
				"<tr><td>%s</td><td>%s</td><td>%.3f</td><td>%s</td><td>%s</td><td>%s</td><td>%llu</"
				"td></tr>\n",
				v ? "" : r->r[i].name, variant_names[v], m->seconds, size_text(m->disk_bytes, a),
				size_text(m->ahead, b), size_text(m->wasted, c), (unsigned long long)m->seeks);
		}
	fputs("</table></body></html>\n", f);
	return fclose(f) ? -errno : 0;
}
