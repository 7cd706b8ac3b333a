/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_compound.c - operations with arbitrary bytes, in a session and without: server/nfs4/, server/state/, xdr/
 *
 * The first byte says how: bit 0 minor version 1, bit 1 no SEQUENCE in front, bit 2 everything has to wait once, bit 3 the
 * reply is to be cached, bit 4 the request is sent twice; the second is the number of operations, the rest are they. Every
 * reply must be one that a client can decode, keep to its limit, and end with the status of the whole. In /mem there are a
 * file "f", a directory "d" and a symbolic link "l".
 */
/* The fuzzers link the libraries only; first, since the RPC library has macros of its functions' names. */
#include "tests/unit/memfs.c"

#include <stdlib.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "server/rpc/rpc_int.h" /* a connection that is not one */
#include "xdr/prims.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MINOR_1 = 1, BARE = 2, BUSY = 4, CACHE = 8, TWICE = 16, HEAD = 28, LIMIT = 1 << 16 };

static struct rpc_conn nowhere;
static struct nfs_server srv;
static struct fs *fs;

static void need(bool ok)
{
	if (!ok)
		abort();
}

/* ---- the server ----------------------------------------------------------------------------------------------------------- */

static void closed(void *arg, int err)
{
	(void)arg;
	need(!err);
}

static void make(const char *name, enum fs_type type)
{
	struct fs_create fc = {
		.type = type, .set = {.what = FS_SET_MODE, .mode = 0777}, .target = "d", .target_len = 1};
	struct fs_node *n = NULL;
	struct fs_cinfo ci;

	need(!fs->ops->create(fs->root, name, 1, &fc, &n, &ci));
	fs_node_put(n);
}

static void start(void)
{
	static const struct export_opts eo = {.anon_uid = 65534, .anon_gid = 65534};
	static const struct st_opts so;

	srv = (struct nfs_server){.max_read = 16384, .max_write = 16384};
	fs = memfs_new();
	need(fs != NULL);
	make("f", FS_REG);
	make("d", FS_DIR);
	make("l", FS_LNK);
	need(!st_new(&srv.state, &so, NULL));
	need(!exports_new(&srv.exports, NULL));
	need(!exports_add(srv.exports, "/mem", fs, &eo, closed, NULL, NULL));
}

static void end(void)
{
	st_free(srv.state);
	need(!exports_free(srv.exports));
}

/* ---- a session, straight from the state layer ------------------------------------------------------------------------------ */

static void make_session(uint8_t id[16])
{
	const struct st_channel ch = {
		.max_request = LIMIT, .max_response = LIMIT, .max_cached = 2048, .max_ops = 64, .max_slots = 2};
	struct st_exchange x = {.owner = {"fuzz", 4}, .who = {.flavor = AUTH_SYS}};
	struct st_create c = {.sequence = 1, .fore = ch, .back = ch, .who = {.flavor = AUTH_SYS}, .conn = &nowhere};

	need(st_exchange_id(srv.state, &x) == NFS4_OK);
	c.clientid = x.clientid;
	c.sequence = x.sequenceid;
	need(st_create_session(srv.state, &c) == NFS4_OK);
	memcpy(id, c.sessionid, 16);
	/* else every OPEN is told to wait for the end of reclaims */
	{
		struct st_seq q = {.sessionid = id, .seqid = 1, .nops = 2, .request_len = 100, .reply_min = 100};
		struct st_call call = {0};
		struct xa_out out;
		struct arena a;

		arena_init(&a, 1 << 16);
		xa_out_init(&out, &a, 1000);
		need(st_slot_begin(srv.state, &q, &call) == NFS4_OK);
		need(st_reclaim_complete(srv.state, call.client, false) == NFS4_OK);
		st_slot_finish(srv.state, &call, &out, 0, NFS4_OK);
		arena_fini(&a);
	}
}

/* ---- a request and its reply ------------------------------------------------------------------------------------------------- */

static void word(uint8_t **p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(*p, &v, 4);
	*p += 4;
}

static size_t write_request(uint8_t *rec, uint8_t how, uint32_t nops, const uint8_t id[16], const uint8_t *ops,
			    size_t n)
{
	uint8_t *p = rec;

	word(&p, 0);
	word(&p, how & MINOR_1 ? 1 : 2);
	word(&p, nops + !(how & BARE));
	if (!(how & BARE)) {
		word(&p, OP_SEQUENCE);
		memcpy(p, id, 16);
		p += 16;
		word(&p, 2);
		word(&p, 0);
		word(&p, 0);
		word(&p, !!(how & CACHE));
	}
	memcpy(p, ops, n);
	return (size_t)(p - rec) + n;
}

/* What a client makes of it. */
static void check_reply(const struct rpc_call *call, size_t limit)
{
	size_t len = xa_out_len(&call->out);
	uint8_t *all = malloc(len);
	COMPOUND4res res;
	struct arena a;
	uint32_t last;
	XDR in;

	need(all && len >= HEAD && len <= limit);
	need(xa_out_copy(&call->out, all, len));
	arena_init(&a, 16 << 20);
	xa_in_init(&in, &a, all + HEAD, len - HEAD);
	memset(&res, 0, sizeof res);
	need(xdr_COMPOUND4res(&in, &res));
	need(xa_in_left(&in) == 0);
	if (res.resarray.resarray_len) {
		/* each member of the union begins with its status */
		memcpy(&last, &res.resarray.resarray_val[res.resarray.resarray_len - 1].nfs_resop4_u, 4);
		need(last == (uint32_t)res.status || res.status == NFS4ERR_BADXDR);
	}
	arena_fini(&a);
	free(all);
}

static void send_request(const uint8_t *rec, size_t len, size_t limit)
{
	struct rpc_call call = {
		.conn = &nowhere, .vers = 4, .proc = 1, .cred = {.flavor = AUTH_SYS, .uid = 1000, .gid = 1000}};
	enum rpc_verdict v;

	arena_init(&call.arena, 4 << 20);
	xa_in_init(&call.in, &call.arena, rec, len);
	xa_out_init(&call.out, &call.arena, 1 << 20);
	need(xa_out_reserve(&call.out, HEAD) != NULL);
	call.header_len = HEAD;
	call.record_len = len + HEAD;
	v = nfs4_call(&srv, &call);
	if (v == RPC_PARK) {
		call.may_block = true;
		v = nfs4_call(&srv, &call);
	}
	need(v == RPC_REPLY);
	if (call.accept == SUCCESS)
		check_reply(&call, limit);
	nfs4_done(&srv, &call);
	xa_out_fini(&call.out);
	arena_fini(&call.arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t id[16], *rec;
	size_t len, limit;

	if (size < 2 || size > 16384)
		return 0;
	rec = malloc(size + 64);
	need(rec != NULL);
	start();
	make_session(id);
	memfs_set_busy(fs, data[0] & BUSY);
	len = write_request(rec, data[0], data[1], id, data + 2, size - 2);
	limit = data[0] & BARE ? 1 << 20 : data[0] & CACHE ? 2048 + 4 : LIMIT + 4;
	send_request(rec, len, limit);
	if (data[0] & TWICE)
		send_request(rec, len, limit);
	end();
	free(rec);
	return 0;
}
