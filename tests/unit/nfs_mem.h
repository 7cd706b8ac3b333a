/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs_mem.h - one server, one client, and requests about what is in /mem, for tests of whole COMPOUNDs
 *
 * Statuses are returned; what is expected to work is asserted.
 */
#ifndef TESTS_UNIT_NFS_MEM_H
#define TESTS_UNIT_NFS_MEM_H

#include <stdlib.h>
#include <string.h>

#include "tests/unit/nfs_fixture.h"
#include "vhd/base/cleanup.h"

static struct nf_server srv;
static struct nf a;
static const stateid4 anonymous; /* special: nobody's open */

static inline void setup(void)
{
	nf_server_start(&srv);
	nf_client(&a, &srv, "a");
	srv.parked = 0;
}

static inline void teardown(void)
{
	nf_client_free(&a);
	nf_server_stop(&srv);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static inline component4 text(const char *s)
{
	component4 c;

	c.utf8string_val = (char *)(uintptr_t)s;
	c.utf8string_len = (u_int)strlen(s);
	return c;
}

static inline void begin_mem(void)
{
	nf_begin(&a);
	nf_goto_mem(&a);
}

static inline nfsstat4 send_mem(void)
{
	nfsstat4 st = nf_send(&a);

	nf_at_mem(&a);
	return st;
}

/* CREATE in the current directory. */
static inline void put_create(nfs_ftype4 type, const char *name)
{
	CREATE4args c = {.objtype = {.type = type}, .objname = text(name)};

	if (type == NF4LNK)
		c.objtype.createtype4_u.linkdata = text("target");
	nf_op(&a, OP_CREATE);
	NF_PUT(&a, CREATE4args, &c);
}

static inline nfsstat4 create(nfs_ftype4 type, const char *name)
{
	begin_mem();
	put_create(type, name);
	return send_mem();
}

static inline void make_file(const char *name, uint32_t mode, uint32_t uid)
{
	struct fs_create fc = {
		.type = FS_REG,
		.set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = mode, .uid = uid, .gid = uid}};
	struct fs_node *n = NULL;
	struct fs_cinfo ci;

	ck_assert_int_eq(srv.fs->ops->create(srv.fs->root, name, (uint32_t)strlen(name), &fc, &n, &ci), 0);
	fs_node_put(n);
}

static inline void make_dir(const char *name, uint32_t mode, uint32_t uid)
{
	struct fs_create fc = {
		.type = FS_DIR,
		.set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = mode, .uid = uid, .gid = uid}};
	struct fs_node *n = NULL;
	struct fs_cinfo ci;

	ck_assert_int_eq(srv.fs->ops->create(srv.fs->root, name, (uint32_t)strlen(name), &fc, &n, &ci), 0);
	fs_node_put(n);
}

static inline void put_read(uint64_t off, uint32_t count)
{
	READ4args r = {.stateid = anonymous, .offset = off, .count = count};

	nf_op(&a, OP_READ);
	NF_PUT(&a, READ4args, &r);
}

static inline void put_write(uint64_t off, const char *p, u_int len, stable_how4 how)
{
	WRITE4args w = {.stateid = anonymous, .offset = off, .stable = how};

	w.data.data_val = (char *)(uintptr_t)p;
	w.data.data_len = len;
	nf_op(&a, OP_WRITE);
	NF_PUT(&a, WRITE4args, &w);
}

static inline void fill(const char *name, size_t size)
{
	char *p = malloc(size);

	for (size_t i = 0; i < size; i++)
		p[i] = (char)(i % 251);
	make_file(name, 0666, 0);
	for (size_t off = 0; off < size; off += 65536) {
		begin_mem();
		nf_lookup(&a, name);
		put_write(off, p + off, (u_int)(size - off < 65536 ? size - off : 65536), UNSTABLE4);
		ck_assert_int_eq(send_mem(), NFS4_OK);
	}
	free(p);
}

#endif
