/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * io.c - libext2fs's view of the volume: an io_manager over the block cache and the journal
 *
 * Nothing is cached here. The library changes its block size while it opens (1024 for the superblock first) and writes the
 * superblock in bytes; the cache takes any range, so both are only arithmetic.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/checked.h"
#include "vhd/ext4/journal.h"

_Thread_local struct ext4_fs *ext4_io_fs;

static errcode_t io_open(const char *name, int flags, io_channel *out)
{
	io_channel ch = calloc(1, sizeof *ch);

	(void)flags;
	if (!ch || !(ch->name = strdup(name))) {
		free(ch);
		return EXT2_ET_NO_MEMORY;
	}
	ch->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	ch->manager = ext4_io_manager;
	ch->block_size = 1024;
	ch->refcount = 1;
	ch->private_data = ext4_io_fs;
	*out = ch;
	return 0;
}

static errcode_t io_close(io_channel ch)
{
	if (--ch->refcount > 0)
		return 0;
	free(ch->name);
	free(ch);
	return 0;
}

static errcode_t io_set_blksize(io_channel ch, int size)
{
	ch->block_size = size;
	return 0;
}

/* count < 0: bytes. */
static errcode_t range_of(io_channel ch, unsigned long long block, int count, uint64_t *off, uint64_t *len)
{
	*len = count < 0 ? (uint64_t) - (int64_t)count : (uint64_t)count * (unsigned)ch->block_size;
	return mul_ok(block, (uint64_t)(unsigned)ch->block_size, off) ? 0 : EXT2_ET_SHORT_READ;
}

static errcode_t io_read(io_channel ch, unsigned long long block, int count, void *buf)
{
	struct ext4_fs *fs = ch->private_data;
	uint64_t off, len;
	int err;

	if (range_of(ch, block, count, &off, &len))
		return EXT2_ET_SHORT_READ;
	err = cache_read(fs->dev, buf, len, off, CACHE_META);
	return err == -EINVAL ? EXT2_ET_SHORT_READ : (errcode_t)-err;
}

static errcode_t io_write(io_channel ch, unsigned long long block, int count, const void *buf) NO_THREAD_SAFETY
{
	uint64_t off, len;
	int err;

	if (range_of(ch, block, count, &off, &len))
		return EXT2_ET_SHORT_WRITE;
	err = ext4_meta_write(ch->private_data, buf, len, off);
	return err == -EINVAL ? EXT2_ET_SHORT_WRITE : (errcode_t)-err;
}

static errcode_t io_read32(io_channel ch, unsigned long block, int count, void *buf)
{
	return io_read(ch, block, count, buf);
}

static errcode_t io_write32(io_channel ch, unsigned long block, int count, const void *buf)
{
	return io_write(ch, block, count, buf);
}

static errcode_t io_write_byte(io_channel ch, unsigned long off, int count, const void *buf) NO_THREAD_SAFETY
{
	return (errcode_t)-ext4_meta_write(ch->private_data, buf, (uint64_t)count, off);
}

/* Durability is decided above, for the whole device. */
static errcode_t io_flush(io_channel ch)
{
	(void)ch;
	return 0;
}

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "block cache",
	.open = io_open,
	.close = io_close,
	.set_blksize = io_set_blksize,
	.read_blk = io_read32,
	.write_blk = io_write32,
	.flush = io_flush,
	.write_byte = io_write_byte,
	.read_blk64 = io_read,
	.write_blk64 = io_write,
};

io_manager ext4_io_manager = &manager;
