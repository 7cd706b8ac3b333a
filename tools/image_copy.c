/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * image_copy.c - the content of a disk, from one side to the other
 *
 * A thread reads, the caller writes; between them a few large pieces go round. The reader walks from data to data; the writer
 * leaves zeros out, in units of 64 KiB, and sends what is left of a piece as one batch.
 *
 *     free ──reader──► filled ──writer──► free          head: next to write; tail: next to fill
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/image.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/lock.h"
#include "vhd/base/zero.h"

#define PIECE (4u << 20)
#define PIECES 4u
#define UNIT 65536u
#define UNITS_JOINED 16u /* units of one transfer: several transfers of a piece are under way together */

struct piece {
	uint64_t off, len;
	uint8_t *buf;
};

struct copy {
	const struct image_side *from, *to;
	struct lock mu;
	struct cond changed;
	struct piece piece[PIECES];
	unsigned head GUARDED_BY(mu), tail GUARDED_BY(mu); /* counted, not wrapped */
	bool ended GUARDED_BY(mu), stop GUARDED_BY(mu);
	int err GUARDED_BY(mu); /* the reader's */
};

/* ---- reading ----------------------------------------------------------------------------------------------------------------- */

int image_side_next(const struct image_side *s, uint64_t off, uint64_t *data, uint64_t *end)
{
	return s->raw ? hio_next_data(s->raw, off, data, end) : vhd_next_data(s->vhd, off, data, end);
}

int image_side_read(const struct image_side *s, void *buf, uint64_t len, uint64_t off)
{
	int err = s->raw ? hio_read(s->raw, buf, len, off) : vhd_read(s->vhd, buf, len, off);

	if (!err && s->nunused)
		image_blank_unused(s, buf, len, off);
	return err;
}

/* A piece to fill; NULL: the writer gave up. */
static struct piece *next_free(struct copy *c)
{
	struct piece *p;

	lock_take(&c->mu);
	while (c->tail - c->head == PIECES && !c->stop)
		cond_wait(&c->changed, &c->mu);
	p = c->stop ? NULL : &c->piece[c->tail % PIECES];
	lock_drop(&c->mu);
	return p;
}

static void filled(struct copy *c)
{
	lock_take(&c->mu);
	c->tail++;
	cond_signal(&c->changed);
	lock_drop(&c->mu);
}

static int read_all(struct copy *c)
{
	const struct image_side *s = c->from;

	for (uint64_t at = 0; at < s->size;) {
		uint64_t data, end;
		int err = image_side_next(s, at, &data, &end);

		if (err)
			return err;
		data = max_u64(at, round_down_u64(data, UNIT));
		end = min_u64(round_up_u64(end, UNIT), s->size);
		for (at = data; at < end;) {
			struct piece *p = next_free(c);

			if (!p)
				return 0;
			p->off = at;
			p->len = min_u64(end - at, PIECE - at % PIECE);
			if ((err = image_side_read(s, p->buf, p->len, at)) < 0)
				return err;
			at += p->len;
			filled(c);
		}
	}
	return 0;
}

static void *reader(void *arg)
{
	struct copy *c = arg;
	int err = read_all(c);

	lock_take(&c->mu);
	c->err = err;
	c->ended = true;
	cond_signal(&c->changed);
	lock_drop(&c->mu);
	return NULL;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */

static int write_piece(const struct image_side *to, const struct piece *p)
{
	struct hio_req req[PIECE / UNIT];
	struct vhd_io io[PIECE / UNIT];
	struct iovec iov[PIECE / UNIT];
	unsigned n = 0;

	for (uint64_t at = 0; at < p->len;) {
		uint64_t from = at, len = 0;

		while (at < p->len && len < UNIT * UNITS_JOINED &&
		       !mem_is_zero(p->buf + at, min_u64(UNIT, p->len - at))) {
			len += min_u64(UNIT, p->len - at);
			at = from + len;
		}
		if (!len) {
			at += UNIT;
			continue;
		}
		iov[n] = (struct iovec){p->buf + from, len};
		req[n] = (struct hio_req){.op = HIO_OP_WRITE, .off = p->off + from, .iov = &iov[n], .niov = 1};
		io[n] = (struct vhd_io){.off = p->off + from, .iov = &iov[n], .niov = 1};
		n++;
	}
	if (!n)
		return 0;
	return to->raw ? hio_run(to->raw, req, n) : vhd_writev(to->vhd, io, n);
}

static void progress(const char *what, uint64_t done, uint64_t total)
{
	static int last = -1;
	int now = total ? (int)(done * 100 / total) : 100;

	if (now == last || !isatty(STDERR_FILENO))
		return;
	last = now;
	fprintf(stderr, "\r%s %3d %%%s", what, now, done == total ? "\n" : "");
}

static int write_all(struct copy *c, const char *what)
{
	int err = 0;
	bool more;

	do {
		struct piece *p = NULL;

		lock_take(&c->mu);
		while (c->head == c->tail && !c->ended)
			cond_wait(&c->changed, &c->mu);
		more = c->head != c->tail;
		if (more)
			p = &c->piece[c->head % PIECES];
		lock_drop(&c->mu);
		if (more && (err = write_piece(c->to, p)) == 0)
			progress(what, p->off + p->len, c->from->size);
		lock_take(&c->mu);
		c->head += more;
		c->stop = err != 0;
		cond_signal(&c->changed);
		lock_drop(&c->mu);
	} while (more && !err);
	if (!err)
		progress(what, c->from->size, c->from->size);
	return err;
}

static const char *side_path(const struct image_side *s)
{
	return s->raw ? hio_path(s->raw) : vhd_path(s->vhd);
}

int image_copy(const struct image_side *from, const struct image_side *to, const char *what, struct why *why)
{
	struct copy c = {.from = from, .to = to};
	AUTO(freep) uint8_t *bufs = hio_alloc((size_t)PIECE * PIECES);
	pthread_t thread;
	int err;

	if (!bufs)
		return why_set(why, -ENOMEM, "no memory to copy with");
	if (to->size < from->size)
		return why_set(why, -EFBIG, "%s: smaller than what is to be copied", side_path(to));
	for (unsigned i = 0; i < PIECES; i++)
		c.piece[i].buf = bufs + (size_t)i * PIECE;
	lock_init(&c.mu);
	cond_init(&c.changed);
	err = -pthread_create(&thread, NULL, reader, &c);
	if (!err) {
		err = write_all(&c, what);
		pthread_join(thread, NULL);
		if (err)
			why_set(why, err, "%s: writing: %s", side_path(to), strerror(-err));
		else if ((err = c.err) < 0)
			why_set(why, err, "%s: reading: %s", side_path(from), strerror(-err));
	}
	cond_fini(&c.changed);
	lock_fini(&c.mu);
	return err;
}
