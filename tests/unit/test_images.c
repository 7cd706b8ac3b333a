/* SPDX-License-Identifier: BSD-3-Clause */
/* test_images.c - images whose entry changes or goes while somebody uses them */
#include "server/images_int.h"
#include "tests/unit/ext4_image.h"
#include "tests/unit/st_fixture.h"

static struct img m;
static struct cache *cache;
static struct exports *x;
static struct images *im;
static struct st *s;
static struct config conf;

static void setup(void)
{
	struct why why = {.line = ""};
	char text[120];

	img_make(&m, 16, "-t ext4");
	s = tc_state(NULL);
	ck_assert_int_eq(cache_new(&cache, 16u << 20), 0);
	ck_assert_int_eq(exports_new(&x, &why), 0);
	ck_assert_int_eq(images_new(&im, cache, x), 0);
	config_init(&conf);
	snprintf(text, sizeof text, "%s=disk", m.path);
	ck_assert_int_eq(config_add_image(&conf, text, &why), 0);
	ck_assert_msg(images_serve(im, &conf.image[0], &why) == 0, "%s", why.line);
}

static void teardown(void)
{
	st_free(s);
	ck_assert_int_eq(exports_free(x), 0);
	ck_assert_int_eq(images_error(im), 0);
	images_free(im);
	cache_free(cache);
	config_fini(&conf);
	ck_assert_int_eq(img_fsck(&m), 0);
	img_free(&m);
}

static bool take_disk(void *arg, const struct export *e)
{
	if (strcmp(e->path, "/disk") == 0)
		*(struct export **)arg = export_get((struct export *)(uintptr_t)e);
	return true;
}

/* As a call has it; NULL: it is not there. */
static struct export *disk(void)
{
	struct export *e = NULL;

	exports_each(x, take_disk, &e);
	return e;
}

static bool served(bool read_only)
{
	struct export *e = disk();
	bool is = e && e->read_only == read_only;

	export_put(e);
	return is;
}

static void put(struct st_pin *pin)
{
	struct export *e = pin->exp;

	fs_node_put(pin->node);
	export_put(e);
}

/* RFC 8881 §8.5: what clients have open does not keep the image. */
START_TEST(a_changed_entry_is_served_anew_under_open_files)
{
	struct tc t = tc_client(s, "a");
	struct export *e = disk();
	struct st_fhkey key = {.export_id = e->id, .gen = e->fs->root->gen, .ino = e->fs->root->ino};
	struct st_pin pin = {.node = fs_node_get(e->fs->root), .exp = e, .gone = &e->dead, .put = put};
	struct st_name name = tc_name("o");
	stateid4 sid;

	assert_st(st_open(s, t.cl, &key, &name, NULL, 1, 0, true, &pin, &sid, NULL), NFS4_OK);
	conf.image[0].opts.read_only = true;
	ck_assert_uint_eq(images_reload(im, s, &conf), 0);
	ck_assert(served(true));
	ck_assert_uint_eq(images_leaving(im), 0);
	assert_st(st_test_stateid(s, t.cl, &sid), NFS4ERR_ADMIN_REVOKED);
}
END_TEST

START_TEST(an_image_that_is_closed_late_is_served_anew_then)
{
	struct export *call = disk();

	im->patience = 1;
	conf.image[0].opts.read_only = true;
	ck_assert_uint_eq(images_reload(im, s, &conf), 1);
	ck_assert_uint_eq(images_leaving(im), 1);
	ck_assert_ptr_null(disk());
	/* Again, before it is gone: nothing changes. */
	ck_assert_uint_eq(images_reload(im, s, &conf), 1);
	export_put(call);
	while (images_leaving(im))
		usleep(10000);
	ck_assert_uint_eq(images_reload(im, s, &conf), 0);
	ck_assert(served(true));
}
END_TEST

START_TEST(nobody_waits_for_an_image_that_is_not_named_any_more)
{
	struct export *call = disk();
	struct config none;

	im->patience = 1;
	config_init(&none);
	ck_assert_uint_eq(images_reload(im, s, &none), 0);
	ck_assert_uint_eq(images_leaving(im), 1);
	/* Named again, it is waited for. */
	ck_assert_uint_eq(images_reload(im, s, &conf), 1);
	export_put(call);
	while (images_leaving(im))
		usleep(10000);
	ck_assert_uint_eq(images_reload(im, s, &conf), 0);
	ck_assert(served(false));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("images");
	TCase *tc = tcase_create("reload");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_changed_entry_is_served_anew_under_open_files);
	tcase_add_test(tc, an_image_that_is_closed_late_is_served_anew_then);
	tcase_add_test(tc, nobody_waits_for_an_image_that_is_not_named_any_more);
	suite_add_tcase(suite, tc);
	r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
