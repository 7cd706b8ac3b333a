/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * faults.c - the host fails: one call, or all calls from one on
 *
 * The workload goes on until an operation fails. Nothing must crash or hang; when the host is well again, all that was promised
 * before is there, the operation that failed is there or not, and e2fsck has nothing to say.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/crash/crash.h"
#include "vhd/base/log.h"
#include "vhd/io/hio.h"

static struct {
	atomic_uint calls;
	unsigned at; /* this one fails */
	bool on;     /* and all after it */
	int err;
} fault;

static int inject(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	unsigned n = atomic_fetch_add(&fault.calls, 1);

	(void)arg;
	(void)off;
	(void)len;
	(void)iov;
	(void)niov;
	if (n != fault.at && !(fault.on && n > fault.at))
		return 0;
	return ev == HIO_EV_READ ? -EIO : fault.err; /* reading does not fill a disk */
}

/* One run on a fresh copy; how many calls there were. */
static unsigned run(const struct workload *w, const char *image, const char *path)
{
	struct crash_fs c;

	if (crash_run("cp --sparse=always %s %s", image, path))
		crash_die("%s cannot be copied", image);
	atomic_store(&fault.calls, 0);
	hio_set_default_hook(inject, NULL);
	crash_open(&c, path, true);
	if (!c.problem[0])
		model_run(w, &c, true);
	else
		model_none();
	crash_close(&c);
	hio_set_default_hook(NULL, NULL);
	return atomic_load(&fault.calls);
}

static bool judge(const struct workload *w, const char *path, char *problem, size_t cap)
{
	struct crash_fs c;

	model_not_grown();
	crash_open(&c, path, true);
	if (!c.problem[0])
		model_check(&c, UINT32_MAX);
	if (!c.problem[0])
		model_grow(&c, false);
	crash_close(&c);
	snprintf(problem, cap, "%s", c.problem);
	if (!problem[0] && crash_fsck(w, path, "-fn"))
		snprintf(problem, cap, "e2fsck -fn is not content");
	return !problem[0];
}

static unsigned some(const struct workload *w, unsigned faults, unsigned calls, const char *image, const char *path,
		     unsigned job, unsigned jobs, unsigned only)
{
	unsigned broken = 0;

	for (unsigned n = job; n < faults; n += jobs) {
		char problem[600];

		if (only != UINT32_MAX && only != n)
			continue;
		fault.at = (unsigned)((uint64_t)n * calls / faults);
		fault.on = n % 2;
		fault.err = n % 3 ? -EIO : -ENOSPC;
		crash_seed();
		run(w, image, path);
		if (judge(w, path, problem, sizeof problem))
			continue;
		printf("%s: fault %u at call %u of %u (%s%s): %s\n", w->name, n, fault.at, calls, strerror(-fault.err),
		       fault.on ? ", and from then on" : "", problem);
		fflush(stdout);
		broken++;
	}
	return broken;
}

unsigned crash_faults(const struct workload *w, unsigned faults, unsigned jobs, unsigned only, const char *dir)
{
	char image[96], path[96];
	unsigned calls, broken = 0;
	pid_t pid[16];

	snprintf(image, sizeof image, "%s/image.vhd", dir);
	snprintf(path, sizeof path, "%s/disk.vhd", dir);
	log_level = LOG_LVL_ERROR - 1; /* the errors are ours */
	crash_make(w, image);
	fault.at = UINT32_MAX;
	fault.on = false;
	crash_seed();
	calls = run(w, image, path);
	fflush(stdout);
	for (unsigned i = 0; i < jobs; i++)
		if (!(pid[i] = fork())) {
			snprintf(path, sizeof path, "%s/disk-%u.vhd", dir, i);
			broken = some(w, faults, calls, image, path, i, jobs, only);
			unlink(path);
			_exit(broken > 100 ? 100 : (int)broken);
		}
	broken = crash_wait(w, pid, jobs);
	unlink(image);
	unlink(path);
	printf("%-12s %6u host calls, %u faults, %u broken promises\n", w->name, calls, faults, broken);
	return broken;
}
