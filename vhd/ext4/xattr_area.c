/* SPDX-License-Identifier: BSD-3-Clause */
/* xattr_area.c - extended attributes as they lie in memory: looking one up, and making the list anew with a change */
#include <errno.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/ext4/xattr_int.h"

int ext4_xattr_name(const char *full, struct xattr_name *out)
{
	static const struct {
		const char *prefix;
		uint8_t index;
	} prefixes[] = {{"user.", XATTR_USER}, {"trusted.", XATTR_TRUSTED}, {"security.", XATTR_SECURITY}};

	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
		size_t p = strlen(prefixes[i].prefix), len;

		if (strncmp(full, prefixes[i].prefix, p) != 0)
			continue;
		len = strlen(full + p);
		if (len == 0 || len > UINT8_MAX)
			return len ? -ERANGE : -EINVAL;
		*out = (struct xattr_name){.index = prefixes[i].index, .len = (uint8_t)len, .name = full + p};
		return 0;
	}
	return -ENOTSUP;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------ */

/* One attribute, with its value's place checked against the area. */
struct attr {
	struct xattr_name name;
	uint32_t off, len; /* of the value */
	uint32_t inum;
	le32 hash;
	uint32_t next; /* where the following entry begins */
};

static uint32_t entry_size(uint32_t name_len)
{
	return (uint32_t)round_up_u64(sizeof(struct xattr_entry) + name_len, XATTR_PAD);
}

static uint32_t value_size(uint32_t len)
{
	return (uint32_t)round_up_u64(len, XATTR_PAD);
}

static bool is_end(const struct xattr_area *a, uint32_t at)
{
	static const uint8_t end[XATTR_PAD];

	return memcmp(a->base + at, end, sizeof end) == 0;
}

/* The entry at @at: 1; 0 the list ends there; -EUCLEAN. */
static int entry_at(const struct xattr_area *a, uint32_t at, struct attr *out)
{
	struct xattr_entry e;

	if (!range_ok(at, XATTR_PAD, a->size))
		return -EUCLEAN;
	if (is_end(a, at))
		return 0;
	if (!range_ok(at, sizeof e, a->size))
		return -EUCLEAN;
	memcpy(&e, a->base + at, sizeof e);
	/* Behind it there must at least be the list's end. */
	if (!range_ok(at, (uint64_t)entry_size(e.name_len) + XATTR_PAD, a->size))
		return -EUCLEAN;
	*out = (struct attr){
		.name = {.index = e.name_index, .len = e.name_len, .name = (const char *)a->base + at + sizeof e},
		.off = le16_get(e.value_offs),
		.len = le32_get(e.value_size),
		.inum = le32_get(e.value_inum),
		.hash = e.hash,
		.next = at + entry_size(e.name_len),
	};
	/* One without name and index would end the list that it is copied to. */
	if (memchr(out->name.name, '\0', e.name_len) || (!e.name_len && !e.name_index))
		return -EUCLEAN;
	if (out->inum)
		return 1;
	if (!out->len)
		out->off = a->first;
	return range_ok(out->off, out->len, a->size) ? 1 : -EUCLEAN;
}

/* The whole list: no value reaches into it, and their lengths together fit behind it. */
static int check(const struct xattr_area *a)
{
	uint64_t values = 0;
	uint32_t lowest = a->size, at = a->first;
	struct attr x;
	int got;

	while ((got = entry_at(a, at, &x)) > 0) {
		at = x.next;
		if (x.inum || !x.len)
			continue;
		values += value_size(x.len);
		lowest = (uint32_t)min_u64(lowest, x.off);
	}
	if (got < 0)
		return got;
	at += XATTR_PAD;
	return lowest < at || values > a->size - at ? -EUCLEAN : 0;
}

static int compare(const struct xattr_name *a, const struct xattr_name *b)
{
	if (a->index != b->index)
		return a->index < b->index ? -1 : 1;
	if (a->len != b->len)
		return a->len < b->len ? -1 : 1;
	return memcmp(a->name, b->name, a->len);
}

int ext4_xattr_find(const struct xattr_area *a, const struct xattr_name *name, uint32_t *off, uint32_t *len)
{
	uint32_t at = a->first;
	struct attr x;
	int err = a->base ? check(a) : 0;

	if (err || !a->base)
		return err;
	while ((err = entry_at(a, at, &x)) > 0) {
		at = x.next;
		if (compare(&x.name, name) != 0)
			continue;
		*off = x.off;
		*len = x.len;
		return x.inum ? -ENOTSUP : 1;
	}
	return err;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------ */

/* Of name and value; what the two would be padded with counts as zeros. */
static uint32_t hash_of(const struct xattr_name *name, const uint8_t *value, uint32_t len)
{
	uint32_t h = 0;

	for (uint32_t i = 0; i < name->len; i++)
		h = h << 5 ^ h >> 27 ^ (uint8_t)name->name[i];
	for (uint32_t i = 0; i < len; i += XATTR_PAD) {
		uint32_t some = len - i < XATTR_PAD ? len - i : XATTR_PAD;
		le32 word = {.b = {0}};

		memcpy(word.b, value + i, some);
		h = h << 16 ^ h >> 16 ^ le32_get(word);
	}
	return h;
}

/* Where the next entry and the next value of an area go. */
struct build {
	const struct xattr_area *to;
	uint32_t low, high;
	int count;
};

static void add(struct build *b, const struct xattr_name *name, const uint8_t *value, uint32_t len, le32 hash)
{
	struct xattr_entry e = {
		.name_len = name->len, .name_index = name->index, .value_size = le32_of(len), .hash = hash};

	if (len) {
		b->high -= value_size(len);
		memcpy(b->to->base + b->high, value, len);
		e.value_offs = le16_of((uint16_t)b->high);
	}
	memcpy(b->to->base + b->low, &e, sizeof e);
	memcpy(b->to->base + b->low + sizeof e, name->name, name->len);
	b->low += entry_size(name->len);
	b->count++;
}

static bool fits(const struct build *b, const struct xattr_name *name, uint32_t len)
{
	return (uint64_t)entry_size(name->len) + XATTR_PAD + round_up_u64(len, XATTR_PAD) <= b->high - b->low;
}

static int add_new(struct build *b, const struct xattr_change *c)
{
	if (!fits(b, &c->name, c->len))
		return -ENOSPC;
	add(b, &c->name, c->value, c->len, le32_of(b->to->hashed ? hash_of(&c->name, c->value, c->len) : 0));
	return 0;
}

static int add_old(struct build *b, const struct xattr_area *from, const struct attr *x)
{
	if (!fits(b, &x->name, x->len))
		return -ENOSPC;
	add(b, &x->name, from->base + x->off, x->len, x->hash);
	return 0;
}

int ext4_xattr_build(const struct xattr_area *from, const struct xattr_change *c, const struct xattr_area *to)
{
	struct build b = {.to = to, .low = to->first, .high = to->size};
	bool put = !c->value;
	uint32_t at = from->first;
	struct attr x;
	int err = from->base ? check(from) : 0, got = 0;

	while (!err && from->base && (got = entry_at(from, at, &x)) > 0 && !err) {
		int order = compare(&x.name, &c->name);

		at = x.next;
		if (x.inum) {
			err = -ENOTSUP;
			break;
		}
		if (!put && order >= 0) {
			err = add_new(&b, c);
			put = true;
		}
		if (!err && order != 0)
			err = add_old(&b, from, &x);
	}
	if (!err && got < 0)
		err = got;
	if (!err && !put)
		err = add_new(&b, c);
	return err ? err : b.count;
}

uint32_t ext4_xattr_block_hash(const struct xattr_area *a)
{
	uint32_t h = 0, at = a->first;
	struct attr x;

	while (entry_at(a, at, &x) > 0) {
		uint32_t one = le32_get(x.hash);

		/* An entry without a hash: the block is never shared. */
		if (!one)
			return 0;
		h = h << 16 ^ h >> 16 ^ one;
		at = x.next;
	}
	return h;
}
