/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * preload_map.c - which files on NFS are mapped where, for madvise(); see preload.h
 *
 * A table of fixed size: this runs inside allocators' calls of mmap() and munmap(). While it is empty, which it is in most programs,
 * all of that costs one look at a counter. mremap() is not followed. A lock that is not free at once is given up: something is
 * forgotten then, or kept, and a hint goes astray.
 */
#include "tools/preload.h"

#include <stdatomic.h>
#include <string.h>

#define MAPS 64
#define SPINS 1000

static struct map {
	uintptr_t start, end; /* equal: free */
	uint64_t off;         /* of start, in the file */
	struct pre_id id;
	char path[PATH_MAX];
} maps[MAPS];
static atomic_int used;
static atomic_flag busy = ATOMIC_FLAG_INIT;

static bool take(void)
{
	for (int i = 0; i < SPINS; i++)
		if (!atomic_flag_test_and_set(&busy))
			return true;
	return false;
}

static void drop(void)
{
	atomic_flag_clear(&busy);
}

void pre_map_after_fork(void)
{
	atomic_flag_clear(&busy);
}

static void set_end(struct map *m, uintptr_t end)
{
	m->end = end;
	if (m->start == m->end)
		atomic_fetch_sub(&used, 1);
}

/* What is left of a mapping that loses its middle is its beginning. True: of some mapping nothing is left. */
static bool cut(uintptr_t start, uintptr_t end)
{
	int before = atomic_load(&used);

	for (struct map *m = maps; m < maps + MAPS; m++) {
		if (m->start == m->end || m->end <= start || end <= m->start)
			continue;
		if (start > m->start) {
			set_end(m, start);
		} else if (end < m->end) {
			m->off += end - m->start;
			m->start = end;
		} else {
			set_end(m, m->start);
		}
	}
	return atomic_load(&used) < before;
}

void pre_map_remove(void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;
	bool gone;

	if (!atomic_load_explicit(&used, memory_order_relaxed) || start + len < start || !take())
		return;
	gone = pre_on() && cut(start, start + len);
	drop();
	if (gone)
		pre_send_closed();
}

void pre_map_add(void *addr, size_t len, int fd, uint64_t off)
{
	uintptr_t start = (uintptr_t)addr;
	struct pre_id id;

	if (!pre_on() || !pre_identify(fd, &id) || !take())
		return;
	for (struct map *m = maps; m < maps + MAPS; m++)
		if (m->start == m->end) {
			if (!pre_path_of(fd, m->path))
				break;
			m->id = id;
			m->off = off;
			m->start = start;
			m->end = start + len;
			atomic_fetch_add(&used, 1);
			break;
		}
	drop();
}

void pre_map_hint(void *addr, size_t len, uint32_t hints)
{
	uintptr_t start = (uintptr_t)addr, end = start + len;

	if (!atomic_load_explicit(&used, memory_order_relaxed) || end <= start || !pre_on() || !take())
		return;
	for (struct map *m = maps; m < maps + MAPS; m++) {
		uintptr_t from = start > m->start ? start : m->start, to = end < m->end ? end : m->end;

		if (from < to)
			pre_send_hint(-1, m->path, &m->id, hints, m->off + (from - m->start), to - from);
	}
	drop();
}

bool pre_map_has(const struct pre_id *id)
{
	bool has = false;

	if (!atomic_load(&used))
		return false;
	if (!take())
		return true;
	for (struct map *m = maps; m < maps + MAPS; m++)
		has |= m->start != m->end && m->id.ino == id->ino && m->id.minor == id->minor;
	drop();
	return has;
}
