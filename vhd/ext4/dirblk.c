/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dirblk.c - one block of directory entries in memory
 *
 * Layout in dir_int.h. A block may come from a hostile image, and its bytes may even change while they are read (two
 * inodes that claim the same block): every function loads a field once, checks what it loaded, and so stays inside the
 * block whatever it finds. Entries never move except by ext4_dirblk_compact() and ext4_dirblk_split().
 */
#include "vhd/ext4/dir_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t get32(const uint8_t *p)
{
	le32 v;

	memcpy(&v, p, sizeof v);
	return le32_get(v);
}

static void put32(uint8_t *p, uint32_t v)
{
	le32 raw = le32_of(v);

	memcpy(p, &raw, sizeof raw);
}

void ext4_name_hash(const struct ext4_dirfmt *f, uint8_t version, const char *name, uint32_t len, struct ext4_hash *h)
{
	ext2_dirhash_t major = 0, minor = 0;

	/* Fails for unknown versions only, which ext4_dx_root() refuses. */
	if (ext2fs_dirhash2(version, name, (int)len, NULL, 0, f->seed, &major, &minor))
		major = minor = 0;
	major &= ~1u;
	/* The kernel keeps the highest value free for "end of directory". */
	if (major == 0xfffffffeu)
		major = 0xfffffffcu;
	/* The legacy hash has no second half, and listing needs one. It is not on disk: any function does. */
	if (version == EXT2_HASH_LEGACY || version == EXT2_HASH_LEGACY_UNSIGNED)
		minor = ext2fs_crc32c_le(~0u, (const unsigned char *)name, len);
	h->major = major;
	h->minor = minor;
}

/* rec_len of the entry at off < end, 0 when it leads astray. */
static inline uint32_t step(uint32_t block_size, uint32_t end, const uint8_t *b, uint32_t off)
{
	uint32_t rec_len = ext4_rec_len_get(block_size, b + off);

	return rec_len & 3 || rec_len < EXT4_DENT_MIN || rec_len > end - off ? 0 : rec_len;
}

static int parse(const struct ext4_dirfmt *f, uint32_t end, const uint8_t *b, uint32_t off, struct ext4_dent *d)
{
	if (off == end)
		return 0;
	if (off > end || end - off < EXT4_DENT_MIN)
		return -EUCLEAN;
	d->rec_len = step(f->block_size, end, b, off);
	d->off = off;
	d->ino = get32(b + off);
	d->len = b[off + 6];
	d->type = b[off + 7];
	d->name = (const char *)b + off + EXT4_DENT_HEAD;
	if (!d->rec_len || d->rec_len < ext4_dent_size(d->len))
		return -EUCLEAN;
	return 1;
}

int ext4_dirblk_next(const struct ext4_dirfmt *f, const uint8_t *b, uint32_t off, struct ext4_dent *d)
{
	return parse(f, f->end, b, off, d);
}

static bool tail_ok(const struct ext4_dirfmt *f, const uint8_t *b)
{
	const uint8_t *t = b + f->end;

	return !f->has_csum ||
	       (!get32(t) && t[4] == EXT4_DIR_TAIL && !t[5] && !t[6] && t[7] == EXT2_DIR_NAME_LEN_CSUM >> 8);
}

bool ext4_dent_ok(const struct ext4_dirfmt *f, const struct ext4_dent *d)
{
	return d->ino <= f->inodes_count && d->len && !memchr(d->name, '/', d->len) && !memchr(d->name, 0, d->len);
}

int ext4_dirblk_check(const struct ext4_dirfmt *f, const uint8_t *b)
{
	struct ext4_dent d;
	int r;

	if (!tail_ok(f, b))
		return -EUCLEAN;
	for (uint32_t off = 0; (r = ext4_dirblk_next(f, b, off, &d)) > 0; off += d.rec_len) {
		if (!d.ino)
			continue;
		if (!ext4_dent_ok(f, &d))
			return -EUCLEAN;
		/* Without the feature this byte is the upper half of name_len. */
		if (!f->has_filetype && d.type)
			return -EUCLEAN;
	}
	return r;
}

int ext4_dirblk_find(const struct ext4_dirfmt *f, const uint8_t *b, const char *name, uint32_t len, struct ext4_dent *d,
		     uint32_t *prev)
{
	const uint32_t bs = f->block_size, end = f->end;
	/* Names in one directory often have their length and beginning in common, less often the end. */
	const uint8_t last = (uint8_t)name[len - 1];
	uint32_t before = EXT4_NO_OFF, rec_len;

	/* What other names say about themselves does not matter here: this loop is most of a lookup's time. */
	for (uint32_t off = 0; off < end; before = off, off += rec_len) {
		if (end - off < EXT4_DENT_MIN || !(rec_len = step(bs, end, b, off)))
			return -EUCLEAN;
		if (b[off + 6] != len || rec_len < EXT4_DENT_HEAD + len || b[off + EXT4_DENT_HEAD + len - 1] != last ||
		    memcmp(b + off + EXT4_DENT_HEAD, name, len) != 0 || !get32(b + off))
			continue;
		*d = (struct ext4_dent){.off = off,
					.rec_len = rec_len,
					.ino = get32(b + off),
					.name = (const char *)b + off + EXT4_DENT_HEAD,
					.len = (uint8_t)len,
					.type = b[off + 7]};
		*prev = before;
		return 1;
	}
	return 0;
}

/* Bytes at the end of an entry that it does not need. */
static uint32_t slack(const struct ext4_dent *d)
{
	return d->ino ? d->rec_len - ext4_dent_size(d->len) : d->rec_len;
}

uint32_t ext4_dirblk_room(const struct ext4_dirfmt *f, const uint8_t *b, uint32_t len)
{
	const uint32_t need = ext4_dent_size(len), bs = f->block_size, end = f->end;
	uint32_t rec_len;

	/* Most have no room: whether one that has is whole, is looked at there. */
	for (uint32_t off = 0; end - off >= EXT4_DENT_MIN && (rec_len = step(bs, end, b, off)); off += rec_len) {
		struct ext4_dent d;

		if (rec_len < need || (get32(b + off) && rec_len < need + ext4_dent_size(b[off + 6])))
			continue;
		return ext4_dirblk_next(f, b, off, &d) > 0 && slack(&d) >= need ? off : EXT4_NO_OFF;
	}
	return EXT4_NO_OFF;
}

uint32_t ext4_dirblk_free(const struct ext4_dirfmt *f, const uint8_t *b)
{
	struct ext4_dent d;
	uint32_t sum = 0;

	for (uint32_t off = 0; ext4_dirblk_next(f, b, off, &d) > 0; off += d.rec_len)
		sum += slack(&d);
	return sum;
}

static void put_entry(const struct ext4_dirfmt *f, uint8_t *e, uint32_t rec_len, const char *name, uint32_t len,
		      uint32_t ino, uint8_t type)
{
	put32(e, ino);
	ext4_rec_len_put(f->block_size, e, rec_len);
	e[6] = (uint8_t)len;
	e[7] = f->has_filetype ? type : 0;
	memcpy(e + EXT4_DENT_HEAD, name, len);
}

int ext4_dirblk_insert(const struct ext4_dirfmt *f, uint8_t *b, uint32_t room, const char *name, uint32_t len,
		       uint32_t ino, uint8_t type)
{
	struct ext4_dent d;
	uint32_t used;

	if (ext4_dirblk_next(f, b, room, &d) != 1 || slack(&d) < ext4_dent_size(len))
		return -EUCLEAN;
	used = d.rec_len - slack(&d);
	if (used)
		ext4_rec_len_put(f->block_size, b + room, used);
	put_entry(f, b + room + used, d.rec_len - used, name, len, ino, type);
	return 0;
}

int ext4_dirblk_remove(const struct ext4_dirfmt *f, uint8_t *b, uint32_t off, uint32_t prev)
{
	struct ext4_dent d, p;

	if (ext4_dirblk_next(f, b, off, &d) != 1)
		return -EUCLEAN;
	if (prev != EXT4_NO_OFF && (ext4_dirblk_next(f, b, prev, &p) != 1 || prev + p.rec_len != off))
		return -EUCLEAN;
	/* A deleted name should not stay readable in the image. */
	memset(b + off + EXT4_DENT_HEAD, 0, d.len);
	put32(b + off, 0);
	b[off + 6] = b[off + 7] = 0;
	if (prev != EXT4_NO_OFF)
		ext4_rec_len_put(f->block_size, b + prev, p.rec_len + d.rec_len);
	return 0;
}

static void put_tail(const struct ext4_dirfmt *f, uint8_t *b)
{
	uint8_t *t = b + f->end;

	if (!f->has_csum)
		return;
	memset(t, 0, EXT4_DIR_TAIL);
	t[4] = EXT4_DIR_TAIL;
	t[7] = EXT2_DIR_NAME_LEN_CSUM >> 8;
}

/* A block being filled from its start. */
struct packer {
	const struct ext4_dirfmt *f;
	uint8_t *b;
	uint32_t off, last;
};

static void pack(struct packer *p, const uint8_t *from, uint32_t off, uint32_t size)
{
	memcpy(p->b + p->off, from + off, size);
	ext4_rec_len_put(p->f->block_size, p->b + p->off, size);
	p->last = p->off;
	p->off += size;
}

static void pack_end(struct packer *p)
{
	memset(p->b + p->off, 0, p->f->end - p->off);
	/* Without a single name this makes the one unused entry. */
	ext4_rec_len_put(p->f->block_size, p->b + p->last, p->f->end - p->last);
	put_tail(p->f, p->b);
}

void ext4_dirblk_compact(const struct ext4_dirfmt *f, const uint8_t *b, uint32_t from, uint8_t *to)
{
	struct packer p = {.f = f, .b = to};
	struct ext4_dent d;

	for (uint32_t off = from; ext4_dirblk_next(f, b, off, &d) > 0; off += d.rec_len)
		if (d.ino)
			pack(&p, b, off, ext4_dent_size(d.len));
	pack_end(&p);
}

void ext4_dirblk_init(const struct ext4_dirfmt *f, uint8_t *b)
{
	struct packer p = {.f = f, .b = b};

	pack_end(&p);
}

void ext4_dirblk_init_dots(const struct ext4_dirfmt *f, uint8_t *b, uint32_t ino, uint32_t parent)
{
	memset(b, 0, f->block_size);
	put_entry(f, b, EXT4_DENT_MIN, ".", 1, ino, EXT2_FT_DIR);
	put_entry(f, b + EXT4_DENT_MIN, f->end - EXT4_DENT_MIN, "..", 2, parent, EXT2_FT_DIR);
	put_tail(f, b);
}

int ext4_dirblk_dotdot(const struct ext4_dirfmt *f, const uint8_t *b, struct ext4_dent *d)
{
	struct ext4_dent dot;

	/* In the root of an index ".." spans the block to its end. */
	if (parse(f, f->block_size, b, 0, &dot) != 1 || dot.len != 1 || dot.name[0] != '.' ||
	    parse(f, f->block_size, b, dot.rec_len, d) != 1 || d->len != 2 || memcmp(d->name, "..", 2) != 0 ||
	    !d->ino || d->ino > f->inodes_count)
		return -EUCLEAN;
	return 0;
}

uint32_t ext4_dir_seed(const struct ext4_dirfmt *f, uint32_t ino, uint32_t gen)
{
	le32 v[2] = {le32_of(ino), le32_of(gen)};

	return ext2fs_crc32c_le(f->csum_seed, v[0].b, sizeof v);
}

bool ext4_dirblk_csum_ok(const struct ext4_dirfmt *f, uint32_t seed, const uint8_t *b)
{
	return !f->has_csum || get32(b + f->end + 8) == ext2fs_crc32c_le(seed, b, f->end);
}

void ext4_dirblk_csum_set(const struct ext4_dirfmt *f, uint32_t seed, uint8_t *b)
{
	if (f->has_csum)
		put32(b + f->end + 8, ext2fs_crc32c_le(seed, b, f->end));
}

static int by_hash(const void *pa, const void *pb)
{
	const struct ext4_split *a = pa, *b = pb;

	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	return a->off < b->off ? -1 : a->off > b->off;
}

/* The first element of the upper half: the nearest to the middle that leaves the new name room where it belongs, does not
 * part names of one hash if that can be helped, and leaves no half empty. */
static uint32_t split_point(const struct ext4_split *map, uint32_t n, uint32_t total, uint32_t cap, uint32_t h,
			    uint32_t need)
{
	uint32_t best = 0, best_cost = UINT32_MAX, below = map[0].size;

	for (uint32_t i = 1; i < n; below += map[i++].size) {
		bool parted = map[i].hash == map[i - 1].hash;
		uint32_t lower = below, upper = total - below, cost;

		if (h >= map[i].hash)
			upper += need;
		else
			lower += need;
		if (lower > cap || upper > cap)
			continue;
		cost = (lower > upper ? lower - upper : upper - lower) + (parted ? 2 * cap : 0);
		if (cost < best_cost) {
			best = i;
			best_cost = cost;
		}
	}
	return best;
}

int ext4_dirblk_split(const struct ext4_dirfmt *f, uint8_t version, const uint8_t *b, struct ext4_split *map,
		      uint32_t h, uint32_t len, uint8_t *lo, uint8_t *hi, uint32_t *at)
{
	struct packer plo = {.f = f, .b = lo}, phi = {.f = f, .b = hi};
	uint32_t n = 0, total = 0, cut;
	struct ext4_dent d;
	int r;

	for (uint32_t off = 0; (r = ext4_dirblk_next(f, b, off, &d)) > 0; off += d.rec_len) {
		struct ext4_hash hash;

		if (!d.ino)
			continue;
		ext4_name_hash(f, version, d.name, d.len, &hash);
		map[n] = (struct ext4_split){.hash = hash.major, .off = off, .size = ext4_dent_size(d.len)};
		total += map[n++].size;
	}
	if (r < 0)
		return r;
	qsort(map, n, sizeof *map, by_hash);
	if (n < 2 || !(cut = split_point(map, n, total, f->end, h, ext4_dent_size(len))))
		return -ENOSPC;
	for (uint32_t i = 0; i < n; i++)
		pack(i < cut ? &plo : &phi, b, map[i].off, map[i].size);
	pack_end(&plo);
	pack_end(&phi);
	*at = map[cut].hash | (map[cut].hash == map[cut - 1].hash);
	return 0;
}
