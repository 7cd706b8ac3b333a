/* SPDX-License-Identifier: BSD-3-Clause */
/* test_hio.c - host files: alignment, batches, the end of the file, locks, failures */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/io/hio.h"

static struct hio *file(unsigned flags)
{
	struct hio *h = NULL;
	int err = hio_open(&h, fx_path, flags, &fx_why);

	ck_assert_msg(err == 0, "%d: %s", err, fx_why.line);
	return h;
}

static bool all_are(const uint8_t *b, size_t from, size_t to, uint8_t value)
{
	while (from < to && b[from] == value)
		from++;
	return from == to;
}

/* What the rounds of a loop test differ in. */
static const struct {
	unsigned flags;
	uint32_t align; /* 0: the host's */
	bool uring;
} kinds[] = {
	{0, 0, true}, {0, 0, false}, {0, 4096, true}, {0, 4096, false}, {HIO_CACHED, 0, true}, {HIO_CACHED, 0, false},
};

static struct hio *kind(int i)
{
	struct hio *h = file(HIO_WRITE | HIO_CREATE | kinds[i].flags);

	if (kinds[i].align)
		hio_set_align(h, kinds[i].align);
	hio_allow_uring(kinds[i].uring);
	return h;
}

/* Batches of any alignment of offset, length and memory, against a copy in memory; the length stays what was written. */
START_TEST(batches_of_any_alignment_keep_what_is_written)
{
	enum { SIZE = 1 << 20, N = 20 };
	struct hio *h = kind(_i);
	AUTO(freep) uint8_t *shadow = calloc(1, SIZE), *mem = malloc(SIZE * 2);
	uint64_t end = 0;

	ck_assert(shadow && mem);
	for (int round = 0; round < 30; round++) {
		struct hio_req req[N];
		struct iovec iov[N][2];
		uint64_t slot = SIZE / N, at = 0;

		for (int i = 0; i < N; i++) {
			uint64_t unit = round % 3 == 0 ? 4096 : round % 3 == 1 ? 512 : 1;
			uint64_t off = (uint64_t)i * slot / unit * unit + (uint64_t)(unit == 1 ? fx_rnd(500) : 0);
			uint64_t len = (1 + fx_rnd(unit == 1 ? 20000 : 40000 / unit)) * unit,
				 half = len / 2 / unit * unit;

			at += unit == 1 ? fx_rnd(7) : 0;
			iov[i][0] = (struct iovec){mem + at, half};
			iov[i][1] = (struct iovec){mem + at + half, len - half};
			req[i] = (struct hio_req){
				.op = fx_rnd(2) ? HIO_OP_WRITE : HIO_OP_READ, .off = off, .iov = iov[i], .niov = 2};
			memset(mem + at, (int)fx_rnd(256), len);
			at += len;
			ck_assert_uint_le(off + len, SIZE);
			ck_assert_uint_le(at, SIZE * 2);
			if (req[i].op == HIO_OP_WRITE) {
				memcpy(shadow + off, iov[i][0].iov_base, len);
				end = max_u64(end, off + len);
			}
		}
		/* Neighbours of the batch must not overlap: reads and writes of one are done in any order. */
		for (int i = 0; i + 1 < N; i++)
			ck_assert_uint_le(req[i].off + req[i].iov[0].iov_len + req[i].iov[1].iov_len, req[i + 1].off);
		ck_assert_int_eq(hio_run(h, req, N), 0);
		for (int i = 0; i < N; i++) {
			uint64_t len = iov[i][0].iov_len + iov[i][1].iov_len;

			ck_assert_int_eq(req[i].result, 0);
			ck_assert_mem_eq(iov[i][0].iov_base, shadow + req[i].off, len);
		}
		ck_assert_int_eq(hio_size(h), (int64_t)end);
	}
	hio_close(h);
	hio_allow_uring(true);
}
END_TEST

START_TEST(past_the_end_there_are_zeros)
{
	struct hio *h = kind(_i);
	uint8_t b[8192];

	memset(b, 0xee, sizeof b);
	ck_assert_int_eq(hio_write(h, "hello", 5, 1000), 0);
	ck_assert_int_eq(hio_size(h), 1005);
	ck_assert_int_eq(hio_read(h, b, sizeof b, 996), 0);
	ck_assert_mem_eq(b, "\0\0\0\0hello\0\0", 11);
	ck_assert(all_are(b, 9, sizeof b, 0));
	ck_assert_int_eq(hio_read(h, b, sizeof b, 1 << 30), 0);
	hio_close(h);
}
END_TEST

/* hio.c: what is gone is an error and no zeros, and stays one when the file gets its length back; no write may hide it. */
START_TEST(what_is_gone_of_a_file_that_was_cut_is_an_error)
{
	enum { SIZE = 1 << 20, CUT = 300000, PIECE = 65536 };
	struct hio *h = kind(_i);
	AUTO(freep) uint8_t *b = hio_alloc(SIZE);
	struct hio_req req[4];
	struct iovec iov[4];

	memset(b, 7, SIZE);
	ck_assert_int_eq(hio_write(h, b, SIZE, 0), 0);
	ck_assert_int_eq(hio_look(h), 0);
	ck_assert_int_eq(truncate(fx_path, CUT), 0);
	for (int round = 0; round < 2; round++) {
		memset(b, 1, SIZE);
		for (int i = 0; i < 4; i++) {
			iov[i] = (struct iovec){b + i * PIECE, PIECE};
			req[i] = (struct hio_req){
				.op = HIO_OP_READ, .off = (uint64_t)i * 2 * PIECE, .iov = &iov[i], .niov = 1};
		}
		ck_assert_int_eq(hio_run(h, req, 4), -EIO);
		for (int i = 0; i < 4; i++)
			ck_assert_int_eq(req[i].result, i * 2 * PIECE + PIECE > CUT ? -EIO : 0);
		ck_assert(all_are(b, 0, 2 * PIECE, 7));
		ck_assert_int_eq(hio_read(h, b, 1000, CUT - 1000), 0);
		ck_assert(all_are(b, 0, 1000, 7));
		ck_assert_int_eq(hio_read(h, b, 1001, CUT - 1000), -EIO);
		ck_assert_int_eq(hio_write(h, b, 4096, 0), -EIO);
		ck_assert_int_eq(hio_write(h, b, 4096, SIZE - 4096), -EIO);
		ck_assert_int_eq(hio_punch(h, 0, 4096), -EIO);
		ck_assert_int_eq(hio_truncate(h, SIZE), -EIO);
		ck_assert_int_eq(hio_flush(h), -EIO);
		ck_assert_int_eq(hio_look(h), -EIO);
		ck_assert_int_eq(hio_size(h), round ? SIZE : CUT);
		ck_assert_int_eq(truncate(fx_path, SIZE), 0);
	}
	hio_close(h);
}
END_TEST

/* A write is the first to come: it must not make the file long again, with zeros in place of what is gone. */
START_TEST(a_write_does_not_hide_that_the_file_was_cut)
{
	struct hio *h = kind(_i);
	AUTO(freep) uint8_t *b = hio_alloc(1 << 20);

	memset(b, 7, 1 << 20);
	ck_assert_int_eq(hio_write(h, b, 1 << 20, 0), 0);
	ck_assert_int_eq(truncate(fx_path, 4096), 0);
	ck_assert_int_eq(hio_write(h, b, 4096, (1 << 20) - 4096), -EIO);
	ck_assert_int_eq(hio_write(h, b, 100, 1 << 20), -EIO);
	ck_assert_int_eq(hio_size(h), 4096);
	hio_close(h);
}
END_TEST

/* What we cut ourselves is no loss, at no moment. */
static void *cut_and_grow(void *arg)
{
	for (int i = 0; i < 3000; i++)
		ck_assert_int_eq(hio_truncate(arg, i % 2 ? 1 << 20 : 1 << 16), 0);
	return NULL;
}

START_TEST(who_cuts_a_file_through_us_loses_nothing)
{
	struct hio *h = kind(_i);
	AUTO(freep) uint8_t *b = hio_alloc(1 << 16);
	pthread_t t;

	memset(b, 7, 1 << 16);
	ck_assert_int_eq(hio_write(h, b, 1 << 16, 0), 0);
	ck_assert_int_eq(hio_truncate(h, 1 << 20), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, cut_and_grow, h), 0);
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(hio_look(h), 0);
		ck_assert_int_eq(hio_write(h, b, 4096, 4096), 0);
		ck_assert_int_eq(hio_read(h, b, 1 << 16, 0), 0);
	}
	ck_assert_int_eq(pthread_join(t, NULL), 0);
	ck_assert_int_eq(hio_look(h), 0);
	ck_assert_int_eq(hio_read(h, b, 1 << 16, 1 << 20), 0);
	hio_close(h);
}
END_TEST

/* Moved away it is still itself; without a name, or with another file under its name, what is written to it will not be found. */
START_TEST(a_file_that_was_removed_or_replaced_is_found_out)
{
	struct hio *h = file(HIO_WRITE | HIO_CREATE);
	char other[PATH_MAX];
	FILE *f;

	snprintf(other, sizeof other, "%s.moved", fx_path);
	ck_assert_int_eq(hio_write(h, "x", 1, 0), 0);
	ck_assert_int_eq(hio_look(h), 0);
	ck_assert_int_eq(rename(fx_path, other), 0);
	ck_assert_int_eq(hio_look(h), 0);
	ck_assert_ptr_nonnull(f = fopen(fx_path, "we"));
	fclose(f);
	ck_assert_int_eq(hio_look(h), -ESTALE);
	ck_assert_int_eq(rename(other, fx_path), 0);
	ck_assert_int_eq(hio_look(h), 0);
	ck_assert_int_eq(unlink(fx_path), 0);
	ck_assert_int_eq(hio_look(h), -ESTALE);
	ck_assert_int_eq(hio_write(h, "y", 1, 1), 0); /* who copies it now has all of it */
	hio_close(h);
}
END_TEST

START_TEST(absurd_ranges_are_refused)
{
	struct hio *h = kind(_i);
	uint8_t b[16] = {0};

	ck_assert_int_eq(hio_read(h, b, 16, UINT64_MAX - 8), -EINVAL);
	ck_assert_int_eq(hio_read(h, b, 16, INT64_MAX), -EINVAL);
	ck_assert_int_eq(hio_write(h, b, 16, UINT64_MAX), -EINVAL);
	ck_assert_int_eq(hio_size(h), 0);
	hio_close(h);
}
END_TEST

/* Writes that are not aligned and that make the file longer, from many threads: none cuts off or undoes another's. */
struct tail_writer {
	struct hio *h;
	unsigned n;
	pthread_t t;
};

static void *write_tails(void *arg)
{
	struct tail_writer *w = arg;
	uint8_t b[700];

	for (uint64_t i = w->n; i < 400; i += 4) {
		memset(b, (int)i + 1, sizeof b);
		if (hio_write(w->h, b, sizeof b, i * sizeof b) < 0)
			return arg;
	}
	return NULL;
}

START_TEST(writers_at_the_end_do_not_cut_each_other_off)
{
	struct hio *h = kind(_i);
	struct tail_writer w[4];
	uint8_t b[700];

	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct tail_writer){.h = h, .n = i};
		ck_assert_int_eq(pthread_create(&w[i].t, NULL, write_tails, &w[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		void *failed;

		pthread_join(w[i].t, &failed);
		ck_assert_ptr_null(failed);
	}
	ck_assert_int_eq(hio_size(h), 400 * 700);
	for (uint64_t i = 0; i < 400; i++) {
		ck_assert_int_eq(hio_read(h, b, sizeof b, i * sizeof b), 0);
		ck_assert(all_are(b, 0, sizeof b, (uint8_t)(i + 1)));
	}
	hio_close(h);
}
END_TEST

START_TEST(a_punched_range_reads_as_zeros_and_is_no_data)
{
	struct hio *h = kind(_i);
	AUTO(freep) uint8_t *b = hio_alloc(1 << 20);
	uint64_t data, end;

	ck_assert_ptr_nonnull(b);
	memset(b, 7, 1 << 20);
	ck_assert_int_eq(hio_write(h, b, 1 << 20, 0), 0);
	ck_assert_int_eq(hio_punch(h, 65536, 500000), 0);
	ck_assert_int_eq(hio_size(h), 1 << 20);
	ck_assert_int_eq(hio_read(h, b, 1 << 20, 0), 0);
	ck_assert(all_are(b, 0, 65536, 7) && all_are(b, 65536, 565536, 0) && all_are(b, 565536, 1 << 20, 7));
	ck_assert_int_eq(hio_next_data(h, 0, &data, &end), 0);
	ck_assert_uint_eq(data, 0);
	ck_assert_uint_ge(end, 65536);
	ck_assert_int_eq(hio_next_data(h, 1 << 20, &data, &end), 0);
	ck_assert_uint_eq(data, 1 << 20);
	ck_assert_uint_eq(end, 1 << 20);
	hio_close(h);
}
END_TEST

/* ---- failures ------------------------------------------------------------------------------------------------------------ */

static int fail_event; /* which kind, and the countdown */
static int fail_after;

static int failing(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	(void)arg;
	(void)off;
	(void)len;
	(void)iov;
	(void)niov;
	return (int)ev == fail_event && fail_after-- == 0 ? -EIO : 0;
}

START_TEST(after_a_failed_flush_nothing_is_stable_any_more)
{
	struct hio *h = file(HIO_WRITE | HIO_CREATE);

	hio_set_hook(h, failing, NULL);
	fail_event = HIO_EV_FLUSH;
	fail_after = 1;
	ck_assert_int_eq(hio_flush(h), 0);
	ck_assert_int_eq(hio_flush(h), -EIO);
	ck_assert_int_eq(hio_flush(h), -EIO);
	hio_set_hook(h, NULL, NULL);
	ck_assert_int_eq(hio_flush(h), -EIO);
	hio_close(h);
}
END_TEST

START_TEST(one_failing_transfer_leaves_the_others_of_a_batch)
{
	struct hio *h = file(HIO_WRITE | HIO_CREATE);
	AUTO(freep) uint8_t *b = hio_alloc(4096);
	struct iovec iov = {b, 4096};
	struct hio_req req[5];

	ck_assert_ptr_nonnull(b);
	memset(b, 1, 4096);
	ck_assert_int_eq(hio_truncate(h, 5 * 4096), 0);
	for (unsigned i = 0; i < 5; i++)
		req[i] = (struct hio_req){.op = HIO_OP_WRITE, .off = i * 4096, .iov = &iov, .niov = 1};
	hio_set_hook(h, failing, NULL);
	fail_event = HIO_EV_WRITE;
	fail_after = 2;
	ck_assert_int_eq(hio_run(h, req, 5), -EIO);
	for (unsigned i = 0; i < 5; i++) {
		ck_assert_int_eq(req[i].result, i == 2 ? -EIO : 0);
		ck_assert_int_eq(hio_read(h, b, 4096, i * 4096), 0);
		ck_assert_uint_eq(b[0], i != 2);
	}
	hio_close(h);
}
END_TEST

START_TEST(a_read_only_file_is_not_written)
{
	struct hio *h = file(HIO_WRITE | HIO_CREATE);

	hio_close(h);
	h = file(0);
	ck_assert(!hio_writable(h));
	ck_assert_int_eq(hio_write(h, "x", 1, 0), -EROFS);
	ck_assert_int_eq(hio_truncate(h, 10), -EROFS);
	ck_assert_int_eq(hio_punch(h, 0, 10), -EROFS);
	hio_close(h);
	ck_assert_uint_eq(fx_size(), 0);
}
END_TEST

START_TEST(what_is_no_file_is_refused_without_waiting)
{
	struct hio *h = NULL;

	ck_assert_int_eq(hio_open(&h, fx_dir, 0, &fx_why), -EINVAL);
	ck_assert_ptr_nonnull(strstr(fx_why.line, fx_dir));
	ck_assert_int_eq(mkfifo(fx_path, 0600), 0);
	ck_assert_int_eq(hio_open(&h, fx_path, 0, &fx_why), -EINVAL);
	ck_assert_int_eq(hio_open(&h, "/dev/null", 0, &fx_why), -EINVAL);
	unlink(fx_path);
	ck_assert_int_eq(hio_open(&h, fx_path, 0, &fx_why), -ENOENT);
	ck_assert_ptr_null(h);
}
END_TEST

START_TEST(a_published_file_replaces_nothing)
{
	struct hio *h = file(HIO_WRITE | HIO_CREATE);
	char other[120];

	snprintf(other, sizeof other, "%s/b", fx_dir);
	hio_close(h);
	ck_assert_int_eq(hio_publish(fx_path, other, &fx_why), 0);
	ck_assert_int_eq(access(fx_path, F_OK), -1);
	h = file(HIO_WRITE | HIO_CREATE);
	hio_close(h);
	ck_assert_int_eq(hio_publish(fx_path, other, &fx_why), -EEXIST);
	ck_assert_int_eq(access(fx_path, F_OK), 0);
}
END_TEST

/* ---- locks --------------------------------------------------------------------------------------------------------------- */

START_TEST(a_writer_is_alone_and_readers_share)
{
	struct hio *a = file(HIO_WRITE | HIO_CREATE | HIO_LOCK), *b = NULL;

	ck_assert_int_eq(hio_open(&b, fx_path, HIO_LOCK, &fx_why), -EBUSY);
	ck_assert_ptr_nonnull(strstr(fx_why.line, "in use"));
	ck_assert_int_eq(hio_open(&b, fx_path, HIO_LOCK | HIO_WRITE, &fx_why), -EBUSY);
	hio_close(a);
	a = file(HIO_LOCK);
	b = file(HIO_LOCK);
	hio_close(b);
	b = NULL;
	ck_assert_int_eq(hio_open(&b, fx_path, HIO_LOCK | HIO_WRITE, &fx_why), -EBUSY);
	hio_close(a);
	a = file(HIO_LOCK | HIO_WRITE);
	hio_close(a);
}
END_TEST

START_TEST(qemu_is_kept_out_while_we_write_and_may_read_while_we_read)
{
	struct hio *h;

	if (!fx_have("qemu-img"))
		return;
	fx_make(VHD_DYNAMIC, 4 * MIB, 0);
	h = file(HIO_LOCK | HIO_WRITE);
	ck_assert_int_eq(fx_run("! qemu-img info -f vpc %s", fx_path), 0);
	ck_assert_int_eq(fx_run("qemu-img info -U -f vpc %s", fx_path), 0);
	hio_close(h);
	h = file(HIO_LOCK);
	ck_assert_int_eq(fx_run("qemu-img info -f vpc %s", fx_path), 0);
	ck_assert_int_eq(fx_run("! qemu-io -f vpc -c 'write 0 512' %s", fx_path), 0);
	hio_close(h);
	ck_assert_int_eq(fx_run("qemu-io -f vpc -c 'write 0 512' %s", fx_path), 0);
}
END_TEST

START_TEST(we_are_kept_out_while_qemu_has_the_image)
{
	struct hio *h = NULL;
	int in[2], out[2], n = 0;
	char line[64] = "";
	pid_t pid;

	if (!fx_have("qemu-io"))
		return;
	fx_make(VHD_DYNAMIC, 4 * MIB, 0);
	ck_assert_int_eq(pipe(in) | pipe(out), 0);
	pid = fork();
	if (pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		execlp("qemu-io", "qemu-io", "-f", "vpc", fx_path, (char *)NULL);
		_exit(1);
	}
	close(in[0]);
	close(out[1]);
	/* It answers, so it has the image. */
	ck_assert_int_eq((int)write(in[1], "length\n", 7), 7);
	while (n < 60 && !strchr(line, '\n')) {
		ssize_t got = read(out[0], line + n, 1);

		ck_assert_int_eq((int)got, 1);
		n++;
	}
	ck_assert_int_eq(hio_open(&h, fx_path, HIO_LOCK | HIO_WRITE, &fx_why), -EBUSY);
	ck_assert_int_eq(hio_open(&h, fx_path, HIO_LOCK, &fx_why), -EBUSY);
	close(in[1]);
	waitpid(pid, NULL, 0);
	h = file(HIO_LOCK | HIO_WRITE);
	hio_close(h);
}
END_TEST

/* What is not meant to be behind the end is not there for a moment: the limit on the size of files would be met. */
START_TEST(the_end_of_the_file_is_never_passed)
{
	struct hio *h = file(HIO_WRITE | HIO_CREATE);
	struct rlimit old, low;
	uint8_t b[8704], r[8704];

	for (unsigned i = 0; i < sizeof b; i++)
		b[i] = (uint8_t)(i * 7 / 3);
	ck_assert_int_eq(sysconf(_SC_PAGESIZE) <= 65536, 1);
	hio_set_align(h, (uint32_t)sysconf(_SC_PAGESIZE));
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = old;
	low.rlim_cur = sizeof b;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
	ck_assert_int_eq(hio_write(h, b, sizeof b, 0), 0); /* longer, and then in place */
	b[8200] = b[8191] = 1;
	ck_assert_int_eq(hio_write(h, b + 8192, 512, 8192), 0);
	ck_assert_int_eq(hio_write(h, b + 7680, 512, 7680), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	ck_assert_int_eq(hio_flush(h), 0);
	ck_assert_int_eq((int)hio_size(h), (int)sizeof b);
	ck_assert_int_eq(hio_read(h, r, sizeof r, 0), 0);
	ck_assert_int_eq(memcmp(r, b, sizeof b), 0);
	hio_close(h);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("hio");
	TCase *t = tcase_create("hio");
	int n = (int)ARRAY_LEN(kinds);

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, fx_setup, fx_teardown);
	tcase_add_loop_test(t, batches_of_any_alignment_keep_what_is_written, 0, n);
	tcase_add_loop_test(t, past_the_end_there_are_zeros, 0, n);
	tcase_add_loop_test(t, what_is_gone_of_a_file_that_was_cut_is_an_error, 0, (int)ARRAY_LEN(kinds));
	tcase_add_loop_test(t, a_write_does_not_hide_that_the_file_was_cut, 0, (int)ARRAY_LEN(kinds));
	tcase_add_loop_test(t, who_cuts_a_file_through_us_loses_nothing, 0, (int)ARRAY_LEN(kinds));
	tcase_add_test(t, a_file_that_was_removed_or_replaced_is_found_out);
	tcase_add_loop_test(t, absurd_ranges_are_refused, 0, n);
	tcase_add_loop_test(t, writers_at_the_end_do_not_cut_each_other_off, 0, n);
	tcase_add_loop_test(t, a_punched_range_reads_as_zeros_and_is_no_data, 0, n);
	tcase_add_test(t, the_end_of_the_file_is_never_passed);
	tcase_add_test(t, after_a_failed_flush_nothing_is_stable_any_more);
	tcase_add_test(t, one_failing_transfer_leaves_the_others_of_a_batch);
	tcase_add_test(t, a_read_only_file_is_not_written);
	tcase_add_test(t, what_is_no_file_is_refused_without_waiting);
	tcase_add_test(t, a_published_file_replaces_nothing);
	tcase_add_test(t, a_writer_is_alone_and_readers_share);
	tcase_add_test(t, qemu_is_kept_out_while_we_write_and_may_read_while_we_read);
	tcase_add_test(t, we_are_kept_out_while_qemu_has_the_image);
	suite_add_tcase(s, t);
	return fx_main(s);
}
