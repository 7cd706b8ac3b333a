/* SPDX-License-Identifier: BSD-3-Clause */
/* u64map.c - see u64map.h */
#include "vhd/base/u64map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t home(const struct u64map *m, uint64_t key)
{
	return (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & m->mask;
}

static struct u64map_slot *find(const struct u64map *m, uint64_t key)
{
	uint32_t i = home(m, key);

	while (m->slot[i].key != key && m->slot[i].key != U64MAP_NONE)
		i = (i + 1) & m->mask;
	return &m->slot[i];
}

int u64map_reserve(struct u64map *m, uint32_t n)
{
	struct u64map bigger = {.n = m->n};
	uint64_t slots = 64;

	/* At most half of the slots are taken. */
	while (slots < (uint64_t)n * 2)
		slots *= 2;
	if (m->slot && slots <= (uint64_t)m->mask + 1)
		return 0;
	if (slots > UINT32_MAX / 2)
		return -ENOMEM;
	bigger.slot = malloc(slots * sizeof *bigger.slot);
	if (!bigger.slot)
		return -ENOMEM;
	memset(bigger.slot, 0xff, slots * sizeof *bigger.slot);
	bigger.mask = (uint32_t)slots - 1;
	u64map_for_each(s, m) * find(&bigger, s->key) = *s;
	free(m->slot);
	*m = bigger;
	return 0;
}

uint64_t *u64map_get(const struct u64map *m, uint64_t key)
{
	struct u64map_slot *s;

	if (!m->n)
		return NULL;
	s = find(m, key);
	return s->key == key ? &s->value : NULL;
}

int u64map_put(struct u64map *m, uint64_t key, uint64_t value)
{
	struct u64map_slot *s;
	int err = u64map_reserve(m, m->n + 1);

	/* Half full is where it should grow; full is where it must. */
	if (err && (!m->slot || m->n >= m->mask))
		return err;
	s = find(m, key);
	m->n += s->key != key;
	*s = (struct u64map_slot){key, value};
	return 0;
}

bool u64map_del(struct u64map *m, uint64_t key)
{
	struct u64map_slot *s = m->n ? find(m, key) : NULL;
	uint32_t hole, i;

	if (!s || s->key != key)
		return false;
	m->n--;
	/* Entries behind move up when the hole lies on their way. */
	hole = (uint32_t)(s - m->slot);
	for (i = (hole + 1) & m->mask; m->slot[i].key != U64MAP_NONE; i = (i + 1) & m->mask) {
		uint32_t want = home(m, m->slot[i].key);

		if (((i - want) & m->mask) >= ((i - hole) & m->mask)) {
			m->slot[hole] = m->slot[i];
			hole = i;
		}
	}
	m->slot[hole].key = U64MAP_NONE;
	return true;
}

void u64map_clear(struct u64map *m)
{
	if (m->n)
		memset(m->slot, 0xff, ((size_t)m->mask + 1) * sizeof *m->slot);
	m->n = 0;
}

void u64map_clear_keys(struct u64map *m, const uint64_t *keys, uint32_t n)
{
	if (n > m->mask / 16) {
		u64map_clear(m);
		return;
	}
	while (n)
		u64map_del(m, keys[--n]);
}

void u64map_free(struct u64map *m)
{
	free(m->slot);
	*m = (struct u64map){.slot = NULL};
}
