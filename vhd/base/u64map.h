/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * u64map.h - numbers to numbers
 *
 * Open addressing, linear probing, no tombstones. A zeroed structure is an empty map. The key UINT64_MAX cannot be stored.
 * After u64map_reserve() that many entries go in without fail. No lock of its own.
 */
#ifndef VHDNFS_BASE_U64MAP_H
#define VHDNFS_BASE_U64MAP_H

#include <stdbool.h>
#include <stdint.h>

struct u64map_slot {
	uint64_t key, value;
};

struct u64map {
	struct u64map_slot *slot;
	uint32_t mask, n; /* slots - 1; entries */
};

#define U64MAP_NONE UINT64_MAX

/* Room for @n entries in all. 0 or -ENOMEM, and then nothing changed. */
int u64map_reserve(struct u64map *m, uint32_t n);
/* The value's place, or NULL. Good until the map changes. */
uint64_t *u64map_get(const struct u64map *m, uint64_t key);
/* Put or replace. -ENOMEM when it had to grow and could not. */
int u64map_put(struct u64map *m, uint64_t key, uint64_t value);
bool u64map_del(struct u64map *m, uint64_t key);
void u64map_clear(struct u64map *m); /* no entries; the memory stays */
/* The same where @keys are all there are: for few in a large map. */
void u64map_clear_keys(struct u64map *m, const uint64_t *keys, uint32_t n);
void u64map_free(struct u64map *m);

/* All entries, in no order; the map must not change meanwhile. */
#define u64map_for_each(s, m)                                                                                          \
	for (struct u64map_slot *s = (m)->slot, *s##_end = s ? s + (m)->mask + 1 : s; s != s##_end; s++)               \
		if (s->key != U64MAP_NONE)

#endif
