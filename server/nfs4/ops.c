/* SPDX-License-Identifier: BSD-3-Clause */
/* ops.c - see ops.h */
#include "server/nfs4/ops.h"

#include "vhd/base/cleanup.h"

static const struct op_desc ops[] = {
	[OP_ACCESS] = {"ACCESS", op_access, 1, NEEDS_CFH},
	[OP_CLOSE] = {"CLOSE", op_close, 1, NEEDS_CFH},
	[OP_COMMIT] = {"COMMIT", op_commit, 1, NEEDS_CFH | BLOCKS},
	[OP_CREATE] = {"CREATE", op_create, 1, NEEDS_CFH | MUTATES | LASTING | BLOCKS},
	[OP_DELEGPURGE] = {"DELEGPURGE", op_delegpurge, 1, 0},
	[OP_DELEGRETURN] = {"DELEGRETURN", op_delegreturn, 1, NEEDS_CFH},
	[OP_GETATTR] = {"GETATTR", op_getattr, 1, NEEDS_CFH},
	[OP_GETFH] = {"GETFH", op_getfh, 1, NEEDS_CFH},
	[OP_LINK] = {"LINK", op_link, 1, NEEDS_CFH | NEEDS_SFH | MUTATES | LASTING | BLOCKS},
	[OP_LOCK] = {"LOCK", op_lock, 1, NEEDS_CFH | FAIL_BODY},
	[OP_LOCKT] = {"LOCKT", op_lockt, 1, NEEDS_CFH | FAIL_BODY},
	[OP_LOCKU] = {"LOCKU", op_locku, 1, NEEDS_CFH},
	[OP_LOOKUP] = {"LOOKUP", op_lookup, 1, NEEDS_CFH},
	[OP_LOOKUPP] = {"LOOKUPP", op_lookupp, 1, NEEDS_CFH},
	[OP_NVERIFY] = {"NVERIFY", op_nverify, 1, NEEDS_CFH},
	[OP_OPEN] = {"OPEN", op_open, 1, NEEDS_CFH | LASTING},
	[OP_OPENATTR] = {"OPENATTR", NULL, 1, NEEDS_CFH},
	[OP_OPEN_CONFIRM] = {"OPEN_CONFIRM", NULL, 0, 0},
	[OP_OPEN_DOWNGRADE] = {"OPEN_DOWNGRADE", op_open_downgrade, 1, NEEDS_CFH},
	[OP_PUTFH] = {"PUTFH", op_putfh, 1, 0},
	[OP_PUTPUBFH] = {"PUTPUBFH", op_putpubfh, 1, 0},
	[OP_PUTROOTFH] = {"PUTROOTFH", op_putrootfh, 1, 0},
	[OP_READ] = {"READ", op_read, 1, NEEDS_CFH},
	[OP_READDIR] = {"READDIR", op_readdir, 1, NEEDS_CFH},
	[OP_READLINK] = {"READLINK", op_readlink, 1, NEEDS_CFH},
	[OP_REMOVE] = {"REMOVE", op_remove, 1, NEEDS_CFH | MUTATES | LASTING},
	[OP_RENAME] = {"RENAME", op_rename, 1, NEEDS_CFH | NEEDS_SFH | MUTATES | LASTING | BLOCKS},
	[OP_RENEW] = {"RENEW", NULL, 0, 0},
	[OP_RESTOREFH] = {"RESTOREFH", op_restorefh, 1, 0},
	[OP_SAVEFH] = {"SAVEFH", op_savefh, 1, NEEDS_CFH},
	[OP_SECINFO] = {"SECINFO", op_secinfo, 1, NEEDS_CFH},
	[OP_SETATTR] = {"SETATTR", op_setattr, 1, NEEDS_CFH | MUTATES | LASTING | BLOCKS | FAIL_BODY},
	[OP_SETCLIENTID] = {"SETCLIENTID", NULL, 0, 0},
	[OP_SETCLIENTID_CONFIRM] = {"SETCLIENTID_CONFIRM", NULL, 0, 0},
	[OP_VERIFY] = {"VERIFY", op_verify, 1, NEEDS_CFH},
	[OP_WRITE] = {"WRITE", op_write, 1, NEEDS_CFH | MUTATES},
	[OP_RELEASE_LOCKOWNER] = {"RELEASE_LOCKOWNER", NULL, 0, 0},
	[OP_BACKCHANNEL_CTL] = {"BACKCHANNEL_CTL", op_backchannel_ctl, 1, 0},
	[OP_BIND_CONN_TO_SESSION] = {"BIND_CONN_TO_SESSION", op_bind_conn_to_session, 1, NO_SESSION},
	[OP_EXCHANGE_ID] = {"EXCHANGE_ID", op_exchange_id, 1, NO_SESSION | BLOCKS},
	[OP_CREATE_SESSION] = {"CREATE_SESSION", op_create_session, 1, NO_SESSION | BLOCKS},
	[OP_DESTROY_SESSION] = {"DESTROY_SESSION", op_destroy_session, 1, NO_SESSION},
	[OP_FREE_STATEID] = {"FREE_STATEID", op_free_stateid, 1, 0},
	[OP_GET_DIR_DELEGATION] = {"GET_DIR_DELEGATION", op_get_dir_delegation, 1, NEEDS_CFH},
	[OP_GETDEVICEINFO] = {"GETDEVICEINFO", NULL, 1, 0},
	[OP_GETDEVICELIST] = {"GETDEVICELIST", NULL, 1, NEEDS_CFH},
	[OP_LAYOUTCOMMIT] = {"LAYOUTCOMMIT", NULL, 1, NEEDS_CFH},
	[OP_LAYOUTGET] = {"LAYOUTGET", NULL, 1, NEEDS_CFH},
	[OP_LAYOUTRETURN] = {"LAYOUTRETURN", NULL, 1, 0},
	[OP_SECINFO_NO_NAME] = {"SECINFO_NO_NAME", op_secinfo_no_name, 1, NEEDS_CFH},
	[OP_SEQUENCE] = {"SEQUENCE", op_sequence, 1, NO_SESSION},
	[OP_SET_SSV] = {"SET_SSV", op_set_ssv, 1, 0},
	[OP_TEST_STATEID] = {"TEST_STATEID", op_test_stateid, 1, 0},
	[OP_WANT_DELEGATION] = {"WANT_DELEGATION", NULL, 1, NEEDS_CFH},
	[OP_DESTROY_CLIENTID] = {"DESTROY_CLIENTID", op_destroy_clientid, 1, NO_SESSION},
	[OP_RECLAIM_COMPLETE] = {"RECLAIM_COMPLETE", op_reclaim_complete, 1, BLOCKS},
	[OP_ALLOCATE] = {"ALLOCATE", op_allocate, 2, NEEDS_CFH | MUTATES | LASTING | BLOCKS},
	[OP_COPY] = {"COPY", NULL, 2, NEEDS_CFH | NEEDS_SFH},
	[OP_COPY_NOTIFY] = {"COPY_NOTIFY", NULL, 2, NEEDS_CFH},
	[OP_DEALLOCATE] = {"DEALLOCATE", op_deallocate, 2, NEEDS_CFH | MUTATES | LASTING | BLOCKS},
	[OP_IO_ADVISE] = {"IO_ADVISE", op_io_advise, 2, NEEDS_CFH},
	[OP_LAYOUTERROR] = {"LAYOUTERROR", NULL, 2, NEEDS_CFH},
	[OP_LAYOUTSTATS] = {"LAYOUTSTATS", NULL, 2, NEEDS_CFH},
	[OP_OFFLOAD_CANCEL] = {"OFFLOAD_CANCEL", NULL, 2, NEEDS_CFH},
	[OP_OFFLOAD_STATUS] = {"OFFLOAD_STATUS", NULL, 2, NEEDS_CFH},
	[OP_READ_PLUS] = {"READ_PLUS", NULL, 2, NEEDS_CFH},
	[OP_SEEK] = {"SEEK", op_seek, 2, NEEDS_CFH | BLOCKS},
	[OP_WRITE_SAME] = {"WRITE_SAME", NULL, 2, NEEDS_CFH},
	[OP_CLONE] = {"CLONE", NULL, 2, NEEDS_CFH | NEEDS_SFH},
	[OP_GETXATTR] = {"GETXATTR", NULL, 2, NEEDS_CFH},
	[OP_SETXATTR] = {"SETXATTR", NULL, 2, NEEDS_CFH},
	[OP_LISTXATTRS] = {"LISTXATTRS", NULL, 2, NEEDS_CFH},
	[OP_REMOVEXATTR] = {"REMOVEXATTR", NULL, 2, NEEDS_CFH},
};

const struct op_desc *op_find(uint32_t num, uint32_t minor)
{
	if (num >= ARRAY_LEN(ops) || !ops[num].name || ops[num].since > minor)
		return NULL;
	return &ops[num];
}

void ops_print(FILE *f)
{
	fprintf(f, "%3s  %-22s %-6s %s\n", "op", "name", "since", "served");
	for (uint32_t i = OP_FIRST; i <= OP_LAST; i++)
		fprintf(f, "%3u  %-22s 4.%-4u %s\n", i, ops[i].name, ops[i].since,
			ops[i].run     ? "yes"
			: ops[i].since ? "no (NFS4ERR_NOTSUPP)"
				       : "no (NFSv4.0 only)");
}
