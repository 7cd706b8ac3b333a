/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hio_model.c - see hio_model.h
 *
 * Time is the model's own: a transfer that waited begins when the one before it ended, however late the thread woke up. So what the
 * threads sleep too long does not add up. The real transfer is done meanwhile.
 */
#include "vhd/io/hio_model.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "vhd/base/checked.h"
#include "vhd/base/clock.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/list.h"
#include "vhd/base/lock.h"

#define DEPTH_MAX 64u
#define NS_PER_S UINT64_C(1000000000)

static const struct model {
	const char *name;
	uint64_t latency_ns; /* of each transfer; of a head: to go elsewhere */
	uint64_t bytes_per_s;
	unsigned depth; /* 0: a head */
} models[] = {
	{"hdd", 8000000, 150000000, 0},
	{"cloud", 1000000, 200000000, 32},
	{"nvme", 80000, 3000000000, 64},
};

/* A transfer that waits for the head. */
struct waiting {
	struct list link;
	const struct hio *h;
	uint64_t off;
	uint64_t since; /* ns */
};

static struct disk {
	const struct model *m; /* NULL: none; constant once files are open */
	struct lock mu;
	struct cond turn;
	struct list queue GUARDED_BY(mu); /* struct waiting, the oldest first */
	bool busy GUARDED_BY(mu);
	const struct hio *at GUARDED_BY(mu); /* where the head is */
	uint64_t pos GUARDED_BY(mu);
	uint64_t free_at[DEPTH_MAX] GUARDED_BY(
		mu);                          /* ns, for each transfer that can be under way; of a head the first */
	uint64_t wire_free_at GUARDED_BY(mu); /* ns: the bytes of those before are through */
	struct hio_model_figures figures GUARDED_BY(mu);
} disk;

static const struct model *find_model(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(models); i++)
		if (strcmp(models[i].name, name) == 0)
			return &models[i];
	return NULL;
}

bool hio_model_knows(const char *name)
{
	return find_model(name);
}

int hio_model_use(const char *name)
{
	const struct model *m = find_model(name);

	if (!m)
		return -EINVAL;
	lock_init(&disk.mu);
	cond_init(&disk.turn);
	list_init(&disk.queue);
	disk.figures = (struct hio_model_figures){.name = m->name};
	disk.m = m;
	return 0;
}

const char *hio_model_names(void)
{
	return "hdd, cloud, nvme";
}

bool hio_is_modelled(void)
{
	return disk.m;
}

bool hio_model_has_head(void)
{
	return disk.m && !disk.m->depth;
}

void hio_model_figures(struct hio_model_figures *f)
{
	*f = (struct hio_model_figures){.name = NULL};
	if (!disk.m)
		return;
	lock_take(&disk.mu);
	*f = disk.figures;
	lock_drop(&disk.mu);
}

/* ---- time ---------------------------------------------------------------------------------------------------------------------- */

static void sleep_until(uint64_t ns)
{
	static _Thread_local bool sharp;
	struct timespec t = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

	if (!sharp) {
		prctl(PR_SET_TIMERSLACK, 1000);
		sharp = true;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static uint64_t wire_ns(const struct model *m, uint64_t len)
{
	return len * NS_PER_S / m->bytes_per_s;
}

static uint64_t req_len(const struct hio_req *r)
{
	uint64_t len = 0;

	for (int i = 0; i < r->niov; i++)
		len += r->iov[i].iov_len;
	return len;
}

static void count(const struct hio_req *r, uint64_t len) REQUIRES(disk.mu)
{
	disk.figures.transfers++;
	if (r->op == HIO_OP_READ)
		disk.figures.bytes_read += len;
	else
		disk.figures.bytes_written += len;
}

/* ---- a head -------------------------------------------------------------------------------------------------------------------- */

/* How long until the head is there. */
static uint64_t travel_ns(const struct model *m, const struct hio *h, uint64_t off) REQUIRES(disk.mu)
{
	uint64_t way;

	if (h != disk.at || off < disk.pos)
		return m->latency_ns;
	way = off - disk.pos;
	return way > m->bytes_per_s ? m->latency_ns : min_u64(m->latency_ns, wire_ns(m, way));
}

/* The nearest ahead of the head; when there is none the lowest; of other files the oldest. */
static struct waiting *next_turn(void) REQUIRES(disk.mu)
{
	struct waiting *ahead = NULL, *lowest = NULL;

	list_for_each (l, &disk.queue) {
		struct waiting *w = list_entry(l, struct waiting, link);

		if (w->h != disk.at)
			continue;
		if (w->off >= disk.pos && (!ahead || w->off < ahead->off))
			ahead = w;
		if (!lowest || w->off < lowest->off)
			lowest = w;
	}
	return ahead ? ahead : lowest ? lowest : list_first(&disk.queue, struct waiting, link);
}

/* A batch is one turn: when it comes, and the end of it. */
static uint64_t head_begin(const struct model *m, const struct hio *h, const struct hio_req *req, unsigned n)
{
	struct waiting me = {.h = h, .off = req->off, .since = now_ns()};
	uint64_t begin, end;

	lock_take(&disk.mu);
	list_push_back(&disk.queue, &me.link);
	while (disk.busy || next_turn() != &me)
		cond_wait(&disk.turn, &disk.mu);
	list_del(&me.link);
	disk.busy = true;
	begin = end = max_u64(me.since, disk.free_at[0]);
	for (unsigned i = 0; i < n; i++) {
		uint64_t len = req_len(&req[i]), way = travel_ns(m, h, req[i].off);

		end += way + wire_ns(m, len);
		disk.at = h;
		disk.pos = req[i].off + len;
		disk.figures.seeks += way == m->latency_ns;
		count(&req[i], len);
	}
	disk.free_at[0] = end;
	disk.figures.busy_us += (end - begin) / 1000;
	lock_drop(&disk.mu);
	return end;
}

static void head_end(void)
{
	lock_take(&disk.mu);
	disk.busy = false;
	cond_broadcast(&disk.turn);
	lock_drop(&disk.mu);
}

/* ---- many at a time ------------------------------------------------------------------------------------------------------------ */

static uint64_t wide_end(const struct model *m, const struct hio_req *r, uint64_t now) REQUIRES(disk.mu)
{
	uint64_t len = req_len(r), begin, end;
	unsigned slot = 0;

	for (unsigned i = 1; i < m->depth; i++)
		if (disk.free_at[i] < disk.free_at[slot])
			slot = i;
	begin = max_u64(now, disk.free_at[slot]);
	/* The bytes come last, and share the wire. */
	end = max_u64(begin + m->latency_ns, disk.wire_free_at) + wire_ns(m, len);
	disk.wire_free_at = end;
	disk.free_at[slot] = end;
	disk.figures.busy_us += wire_ns(m, len) / 1000;
	count(r, len);
	return end;
}

uint64_t hio_model_begin(const struct hio *h, const struct hio_req *req, unsigned n)
{
	const struct model *m = disk.m;
	uint64_t now, end = 0;

	if (!n)
		return 0;
	if (!m->depth)
		return head_begin(m, h, req, n);
	now = now_ns();
	lock_take(&disk.mu);
	for (unsigned i = 0; i < n; i++)
		end = max_u64(end, wide_end(m, &req[i], now));
	lock_drop(&disk.mu);
	return end;
}

void hio_model_end(uint64_t until)
{
	if (!until)
		return;
	sleep_until(until);
	if (!disk.m->depth)
		head_end();
}
