/* SPDX-License-Identifier: BSD-3-Clause */
/* test_status.c - the step from errno to status: server/nfs4/status.c */
#include <errno.h>
#include <stdlib.h>

#include <check.h>

#include "server/nfs4/compound.h"
#include "vhd/base/cleanup.h"

/* What fs.h and the layers below promise, and what a client is told. */
START_TEST(every_errno_that_a_driver_returns_has_its_status)
{
	static const struct {
		int err;
		nfsstat4 st;
	} map[] = {
		{0, NFS4_OK},
		{-EAGAIN, ST_WAIT},
		{-ENOENT, NFS4ERR_NOENT},
		{-EEXIST, NFS4ERR_EXIST},
		{-ENOTDIR, NFS4ERR_NOTDIR},
		{-EISDIR, NFS4ERR_ISDIR},
		{-ENOTEMPTY, NFS4ERR_NOTEMPTY},
		{-EINVAL, NFS4ERR_INVAL},
		{-EFBIG, NFS4ERR_FBIG},
		{-ENOSPC, NFS4ERR_NOSPC},
		{-EROFS, NFS4ERR_ROFS},
		{-EMLINK, NFS4ERR_MLINK},
		{-ENAMETOOLONG, NFS4ERR_NAMETOOLONG},
		{-EXDEV, NFS4ERR_XDEV},
		{-EPERM, NFS4ERR_PERM},
		{-EACCES, NFS4ERR_ACCESS},
		{-ESTALE, NFS4ERR_STALE},
		{-ENXIO, NFS4ERR_NXIO},
		{-ENOMEM, NFS4ERR_DELAY},
		{-EBUSY, NFS4ERR_DELAY},
		{-EDQUOT, NFS4ERR_DQUOT},
		{-EIO, NFS4ERR_IO},
		{-EUCLEAN, NFS4ERR_IO},
		{-ENOTSUP, NFS4ERR_NOTSUPP},
	};

	for (size_t i = 0; i < ARRAY_LEN(map); i++)
		ck_assert_int_eq(errno_status(map[i].err), map[i].st);
}
END_TEST

START_TEST(an_errno_that_nobody_promised_is_a_fault_of_the_server)
{
	ck_assert_int_eq(errno_status(-ENOTTY), NFS4ERR_SERVERFAULT);
	ck_assert_int_eq(errno_status(-4096), NFS4ERR_SERVERFAULT);
	ck_assert_int_eq(errno_status(ENOENT), NFS4ERR_SERVERFAULT); /* positive: not an error of ours */
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("status");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_test(tc, every_errno_that_a_driver_returns_has_its_status);
	tcase_add_test(tc, an_errno_that_nobody_promised_is_a_fault_of_the_server);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
