/* SPDX-License-Identifier: BSD-3-Clause */
/* image_fixture.c - see image_fixture.h */
#include "tests/unit/image_fixture.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhd/base/log.h"

char fx_dir[64], fx_path[96];
struct why fx_why;

void fx_setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(fx_dir, sizeof fx_dir, "%.40s/vhdnfs-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(fx_dir));
	snprintf(fx_path, sizeof fx_path, "%s/a.vhd", fx_dir);
	fx_why.line[0] = '\0';
	log_level = LOG_LVL_ERROR;
}

void fx_teardown(void)
{
	char cmd[96];

	snprintf(cmd, sizeof cmd, "rm -rf %s", fx_dir);
	ck_assert_int_eq(system(cmd), 0);
}

void fx_make(enum vhd_type type, uint64_t size, uint32_t block)
{
	const struct vhd_create_opts o = {.type = type, .size = size, .block_size = block};

	ck_assert_msg(vhd_create(fx_path, &o, &fx_why) == 0, "%s", fx_why.line);
}

struct vhd *fx_open(unsigned flags)
{
	const struct vhd_open_opts o = {.flags = flags};
	struct vhd *v = NULL;
	int err = vhd_open(&v, fx_path, &o, &fx_why);

	ck_assert_msg(err == 0, "%d: %s", err, fx_why.line);
	return v;
}

void fx_close(struct vhd *v)
{
	ck_assert_int_eq(vhd_close(v), 0);
}

void fx_refused(int err, const char *says)
{
	uint64_t before = fx_sum();
	struct stat was, is;

	ck_assert_int_eq(stat(fx_path, &was), 0);
	for (unsigned i = 0; i < 2; i++) {
		const struct vhd_open_opts o = {.flags = i ? VHD_OPEN_WRITE : 0};
		struct vhd *v = NULL;
		int got = vhd_open(&v, fx_path, &o, &fx_why);

		ck_assert_msg(got == err, "%d instead of %d: %s", got, err, fx_why.line);
		ck_assert_ptr_null(v);
		ck_assert_msg(strstr(fx_why.line, says) != NULL, "\"%s\" does not say \"%s\"", fx_why.line, says);
		ck_assert_msg(strncmp(fx_why.line, fx_path, strlen(fx_path)) == 0, "%s", fx_why.line);
		ck_assert_ptr_null(strchr(fx_why.line, '\n'));
	}
	ck_assert_uint_eq(fx_sum(), before);
	ck_assert_int_eq(stat(fx_path, &is), 0);
	ck_assert(was.st_mtim.tv_sec == is.st_mtim.tv_sec && was.st_mtim.tv_nsec == is.st_mtim.tv_nsec);
}

static FILE *file(const char *mode)
{
	FILE *f = fopen(fx_path, mode);

	ck_assert_ptr_nonnull(f);
	return f;
}

void fx_poke(uint64_t off, const void *p, size_t n)
{
	FILE *f = file("r+e");

	ck_assert_int_eq(fseek(f, (long)off, SEEK_SET), 0);
	ck_assert_uint_eq(fwrite(p, 1, n, f), n);
	fclose(f);
}

void fx_peek(uint64_t off, void *p, size_t n)
{
	FILE *f = file("re");

	ck_assert_int_eq(fseek(f, (long)off, SEEK_SET), 0);
	ck_assert_uint_eq(fread(p, 1, n, f), n);
	fclose(f);
}

uint64_t fx_size(void)
{
	struct stat st;

	ck_assert_int_eq(stat(fx_path, &st), 0);
	return (uint64_t)st.st_size;
}

uint64_t fx_sum(void)
{
	uint64_t sum = 14695981039346656037u, word;
	FILE *f = file("re");
	size_t n;

	do {
		word = 0;
		n = fread(&word, 1, sizeof word, f);
		sum = (sum ^ word) * 1099511628211u;
	} while (n == sizeof word);
	sum ^= (uint64_t)ftell(f);
	fclose(f);
	return sum;
}

static void seal(uint64_t at, size_t len, size_t field)
{
	uint8_t b[1024];
	uint32_t sum = 0;
	be32 out;

	fx_peek(at, b, len);
	for (size_t i = 0; i < len; i++)
		sum += i < field || i >= field + 4 ? b[i] : 0;
	out = be32_of(~sum);
	fx_poke(at + field, out.b, 4);
}

void fx_seal_header(void)
{
	seal(512, 1024, 36);
}

void fx_seal_head(void)
{
	seal(0, 512, 64);
}

void fx_seal_tail(void)
{
	seal(fx_size() - 512, 512, 64);
}

uint64_t fx_rnd(uint64_t below)
{
	static uint64_t s = 88172645463325252u;

	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	return s % below;
}

bool fx_have(const char *program)
{
	char cmd[120];

	snprintf(cmd, sizeof cmd, "command -v %s >/dev/null", program);
	return system(cmd) == 0;
}

int fx_run(const char *fmt, ...)
{
	char line[800], cmd[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	snprintf(cmd, sizeof cmd, "{ %s; } >%s/log 2>&1 </dev/null || { cat %s/log; exit 1; }", line, fx_dir, fx_dir);
	return system(cmd);
}

int fx_main(Suite *s)
{
	SRunner *r = srunner_create(s);
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
