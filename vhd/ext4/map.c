/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c - the extent map of an inode in memory: a sorted array of disjoint runs, neighbours merged */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/ext4/ext4_int.h"

#define RUN_MAX (1u << 30) /* blocks of one entry in memory */

void ext4_map_free(struct ext4_map *m)
{
	if (!m)
		return;
	free(m->e);
	free(m);
}

/* The first entry that ends behind lblk. */
static uint32_t find(const struct ext4_map *m, uint32_t lblk)
{
	uint32_t lo = 0, hi = m->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if ((uint64_t)m->e[mid].lblk + m->e[mid].len > lblk)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

void ext4_map_at(const struct ext4_map *m, uint32_t lblk, uint32_t max, struct ext4_ext *run)
{
	uint32_t i = find(m, lblk);
	uint64_t end = (uint64_t)lblk + max;

	if (i < m->n && m->e[i].lblk <= lblk) {
		uint32_t skip = lblk - m->e[i].lblk;

		*run = m->e[i];
		run->lblk = lblk;
		run->pblk += skip;
		run->len -= skip;
		run->len = run->len < max ? run->len : max;
		return;
	}
	if (i < m->n)
		end = min_u64(end, m->e[i].lblk);
	*run = (struct ext4_ext){.lblk = lblk, .len = (uint32_t)(end - lblk)};
}

static int make_room(struct ext4_map *m, uint32_t more)
{
	if (m->n + more > m->cap) {
		uint32_t cap = m->cap ? m->cap * 2 : 4;
		struct ext4_ext *e;

		while (cap < m->n + more)
			cap *= 2;
		e = realloc(m->e, cap * sizeof *e);
		if (!e)
			return -ENOMEM;
		m->e = e;
		m->cap = cap;
	}
	return 0;
}

static void insert_at(struct ext4_map *m, uint32_t i, const struct ext4_ext *e)
{
	memmove(m->e + i + 1, m->e + i, (m->n - i) * sizeof *e);
	m->e[i] = *e;
	m->n++;
}

static void remove_at(struct ext4_map *m, uint32_t i)
{
	memmove(m->e + i, m->e + i + 1, (m->n - i - 1) * sizeof *m->e);
	m->n--;
}

int ext4_map_cut(struct ext4_map *m, uint32_t lblk, uint64_t end)
{
	uint32_t i;
	int err = make_room(m, 1);

	if (err)
		return err;
	for (i = find(m, lblk); i < m->n && m->e[i].lblk < end;) {
		struct ext4_ext *e = &m->e[i];
		uint64_t e_end = (uint64_t)e->lblk + e->len;

		if (e->lblk < lblk && e_end > end) { /* a hole in the middle */
			struct ext4_ext right = *e;

			right.lblk = (uint32_t)end;
			right.pblk += end - e->lblk;
			right.len = (uint32_t)(e_end - end);
			e->len = lblk - e->lblk;
			insert_at(m, i + 1, &right);
			return 0;
		}
		if (e->lblk < lblk) {
			e->len = lblk - e->lblk;
			i++;
		} else if (e_end > end) {
			e->pblk += end - e->lblk;
			e->lblk = (uint32_t)end;
			e->len = (uint32_t)(e_end - end);
			return 0;
		} else {
			remove_at(m, i);
		}
	}
	return 0;
}

static bool joins(const struct ext4_ext *a, const struct ext4_ext *b)
{
	return (uint64_t)a->lblk + a->len == b->lblk && a->pblk + a->len == b->pblk && a->flags == b->flags &&
	       (uint64_t)a->len + b->len <= RUN_MAX;
}

int ext4_map_set(struct ext4_map *m, const struct ext4_ext *run)
{
	uint32_t i;
	int err;

	if ((err = make_room(m, 2)) < 0 || (err = ext4_map_cut(m, run->lblk, (uint64_t)run->lblk + run->len)) < 0 ||
	    (err = make_room(m, 1)) < 0)
		return err;
	i = find(m, run->lblk);
	if (i > 0 && joins(&m->e[i - 1], run)) {
		m->e[--i].len += run->len;
	} else {
		insert_at(m, i, run);
	}
	if (i + 1 < m->n && joins(&m->e[i], &m->e[i + 1])) {
		m->e[i].len += m->e[i + 1].len;
		remove_at(m, i + 1);
	}
	return 0;
}
