/* SPDX-License-Identifier: BSD-3-Clause */
/* test_acl.c - access control lists as arithmetic: who gets what, chmod, create; what Linux 6.18 answers is in the tables */
#include <check.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "vhd/base/cleanup.h"
#include "vhd/volume/acl.h"

enum {
	U = FS_ACL_USER_OBJ,
	u = FS_ACL_USER,
	G = FS_ACL_GROUP_OBJ,
	g = FS_ACL_GROUP,
	M = FS_ACL_MASK,
	O = FS_ACL_OTHER
};
enum { R = MAY_READ, W = MAY_WRITE, X = MAY_EXEC };

#define LIST_MAX 8
struct entries {
	struct fs_ace e[LIST_MAX]; /* up to tag 0 */
};

static struct fs_acl *make(const struct entries *l)
{
	uint32_t n = 0;
	struct fs_acl *a;

	while (n < LIST_MAX && l->e[n].tag)
		n++;
	a = fs_acl_new(n);
	ck_assert_ptr_nonnull(a);
	memcpy(a->e, l->e, n * sizeof l->e[0]);
	return a;
}

/* ---- who gets what: the file is 1000's and of group 2000 ----------------------------------------------------------------------- */

static const struct entries closed = {{{U, 6, 0}, {u, 6, 3000}, {G, 0, 0}, {M, 6, 0}, {O, 0, 0}}};
static const struct entries denied = {{{U, 6, 0}, {u, 0, 3001}, {G, 4, 0}, {M, 4, 0}, {O, 4, 0}}};
static const struct entries parts = {{{U, 0, 0}, {G, 4, 0}, {g, 2, 2001}, {g, 6, 2002}, {M, 7, 0}, {O, 7, 0}}};
static const struct entries masked = {{{U, 7, 0}, {u, 7, 3000}, {G, 7, 0}, {g, 7, 2001}, {M, 4, 0}, {O, 3, 0}}};
static const struct entries plain = {{{U, 6, 0}, {G, 4, 0}, {O, 1, 0}}};

static const struct {
	const struct entries *list;
	struct cred cred;
	unsigned want;
	bool ok;
} who[] = {
	{&closed, {5000, 2000, 0, {0}}, R, false},
	{&closed, {5000, 5000, 1, {2000}}, R, false},
	{&closed, {3000, 5000, 0, {0}}, R | W, true},
	{&closed, {3000, 2000, 0, {0}}, R | W, true}, /* a named user is looked for before groups */
	{&closed, {3000, 5000, 0, {0}}, X, false},
	{&closed, {1000, 5000, 0, {0}}, R | W, true},
	{&closed, {4000, 5000, 0, {0}}, R, false},
	{&denied, {3001, 5000, 0, {0}}, R, false},
	{&denied, {3001, 2000, 0, {0}}, R, false},
	{&denied, {3002, 5000, 0, {0}}, R, true},
	{&parts, {1000, 2002, 0, {0}}, R, false}, /* the owner is that alone */
	{&parts, {4000, 2000, 0, {0}}, R, true},
	{&parts, {4000, 2000, 0, {0}}, W, false},
	{&parts, {4000, 2000, 1, {2001}}, W, true},
	{&parts, {4000, 2000, 1, {2001}}, R | W, false}, /* two groups do not add up */
	{&parts, {4000, 2000, 2, {2001, 2002}}, R | W, true},
	{&parts, {4000, 2000, 0, {0}}, X, false}, /* a member is none of the others */
	{&parts, {4000, 5000, 0, {0}}, R | W | X, true},
	{&masked, {1000, 5000, 0, {0}}, R | W | X, true}, /* the mask is not for the owner */
	{&masked, {3000, 5000, 0, {0}}, R, true},
	{&masked, {3000, 5000, 0, {0}}, W, false},
	{&masked, {4000, 2000, 0, {0}}, W, false},
	{&masked, {4000, 2001, 0, {0}}, W, false},
	{&masked, {4000, 5000, 0, {0}}, W | X, true}, /* nor for others */
	{&plain, {4000, 2000, 0, {0}}, R, true},
	{&plain, {4000, 2000, 0, {0}}, X, false},
	{&plain, {4000, 5000, 0, {0}}, X, true},
};

START_TEST(each_class_gets_what_its_entry_and_the_mask_give)
{
	const struct fs_attr file = {.type = FS_REG, .uid = 1000, .gid = 2000, .mode = 0777};
	struct fs_acl *a = make(who[_i].list);

	ck_assert(fs_acl_valid(a));
	ck_assert_msg(acl_permits(&who[_i].cred, &file, a, who[_i].want) == who[_i].ok, "row %d", _i);
	fs_acl_put(a);
}
END_TEST

/* ---- what is a list ------------------------------------------------------------------------------------------------------------ */

static const struct {
	struct entries list;
	bool ok;
} lists[] = {
	{{{{U, 7, 0}, {G, 7, 0}, {O, 7, 0}}}, true},
	{{{{U, 7, 0}, {G, 7, 0}, {M, 7, 0}, {O, 7, 0}}}, true},
	{{{{U, 7, 0}, {u, 7, 2}, {u, 7, 1}, {G, 7, 0}, {g, 7, 1}, {M, 7, 0}, {O, 7, 0}}}, true},
	{{{{G, 7, 0}, {O, 7, 0}}}, false},
	{{{{U, 7, 0}, {O, 7, 0}}}, false},
	{{{{U, 7, 0}, {G, 7, 0}}}, false},
	{{{{U, 7, 0}, {u, 7, 1}, {G, 7, 0}, {O, 7, 0}}}, false}, /* somebody named, and no mask */
	{{{{U, 7, 0}, {G, 7, 0}, {g, 7, 1}, {O, 7, 0}}}, false},
	{{{{U, 7, 0}, {U, 7, 0}, {G, 7, 0}, {O, 7, 0}}}, false},
	{{{{U, 7, 0}, {G, 7, 0}, {M, 7, 0}, {M, 7, 0}, {O, 7, 0}}}, false},
	{{{{U, 7, 0}, {G, 7, 0}, {O, 7, 0}, {O, 7, 0}}}, false},
	{{{{O, 7, 0}, {G, 7, 0}, {U, 7, 0}}}, false},
	{{{{U, 7, 0}, {G, 7, 0}, {u, 7, 1}, {M, 7, 0}, {O, 7, 0}}}, false},
	{{{{U, 8, 0}, {G, 7, 0}, {O, 7, 0}}}, false},
	{{{{U, 7, 0}, {3, 7, 0}, {G, 7, 0}, {M, 7, 0}, {O, 7, 0}}}, false},
	{{{{U, 7, 0}, {G, 7, 0}, {0x40, 7, 0}, {O, 7, 0}}}, false},
	{{{{U, 7, 0}, {G, 7, 0}, {O, 7, 0}, {0x8000, 7, 0}}}, false},
};

START_TEST(what_is_not_in_order_is_no_list)
{
	struct fs_acl *a = make(&lists[_i].list);

	ck_assert_msg(fs_acl_valid(a) == lists[_i].ok, "row %d", _i);
	fs_acl_put(a);
}
END_TEST

/* ---- modes --------------------------------------------------------------------------------------------------------------------- */

static void perms_are(const struct fs_acl *a, const char *want)
{
	for (uint32_t i = 0; i < a->count; i++)
		ck_assert_msg(a->e[i].perm == (unsigned)(want[i] - '0'), "entry %u: %u", i, a->e[i].perm);
}

START_TEST(chmod_sets_owner_mask_and_others)
{
	struct fs_acl *a = make(&masked), *b = make(&plain);

	fs_acl_set_mode(a, 0652);
	perms_are(a, "677752");
	fs_acl_set_mode(b, 0317);
	perms_are(b, "317");
	fs_acl_put(a);
	fs_acl_put(b);
}
END_TEST

START_TEST(what_is_created_has_what_both_the_mode_and_the_default_list_give)
{
	struct fs_acl *a = make(&masked), *b = make(&plain);
	uint32_t mode = 02666;

	ck_assert(fs_acl_meet_mode(a, &mode));
	perms_are(a, "677742");
	ck_assert_uint_eq(mode, 02642);
	mode = 0777;
	ck_assert(!fs_acl_meet_mode(b, &mode));
	perms_are(b, "641");
	ck_assert_uint_eq(mode, 0641);
	fs_acl_put(a);
	fs_acl_put(b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("acl");
	TCase *tc = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_loop_test(tc, each_class_gets_what_its_entry_and_the_mask_give, 0, (int)ARRAY_LEN(who));
	tcase_add_loop_test(tc, what_is_not_in_order_is_no_list, 0, (int)ARRAY_LEN(lists));
	tcase_add_test(tc, chmod_sets_owner_mask_and_others);
	tcase_add_test(tc, what_is_created_has_what_both_the_mode_and_the_default_list_give);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
