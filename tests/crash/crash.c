/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crash.c - power cuts at every write of the host file, and what must be left after each
 *
 *     crash [--cuts N | --faults N] [--seed S] [--workload NAME] [--jobs N] [--only N] [--keep DIR] [--dump DIR] [--mutate RULE]
 *           [--list]
 *
 * A workload runs on a fresh file system in an image, while a hook records every write, flush, truncation and hole punch of the
 * host file with its data. Then, for cuts spread evenly over the record, the file is built as a disk may hold it: all that was
 * written before the last flush, and of the rest everything up to the cut, or each write by chance, or each sector of it. Our own
 * driver opens it (which replays the journal), and:
 *
 *     e2fsck has nothing to say, when we are done and, on a copy, after replaying and clearing orphans itself
 *     the names, links and types are those after one of the operations between the last promise and the cut
 *     each sector of a file is what was promised, or something written to it later
 *     a file that grows then has zeros behind its old end, now and after the next mount
 *     the image is whole
 *
 * For some of the cuts the power fails again, anywhere in what that opening, growing and closing write. And some are first
 * opened and closed by a server that keeps files without a name for who may come back for them.
 *
 * A superblock of ext4 that is torn between its two sectors is left out where no journal has it whole: when it is written at the
 * start and the end of a mount. (Linux has the same gap; disks with sectors of 4096 bytes do not tear there.)
 *
 * --keep keeps the images that are judged bad, --dump each one, as it was before anybody replayed it, with a list of what our driver
 * finds: for others to compare.
 *
 * The last line is "N cuts, M broken promises".
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

#include "tests/crash/crash.h"
#include "vhd/base/checked.h"
#include "vhd/base/lock.h"
#include "vhd/base/log.h"
#include "vhd/ext4/journal.h"
#include "vhd/image/check.h"
#include "vhd/io/hio.h"

enum { PROBLEM = 600, AGAIN = 5 };
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define CUTS 140u
#else
#define CUTS 5000u
#endif

static char dir[64];
static const char *keep, *dump;
static uint64_t seed = 1, state = 1;
static bool quiet_tools = true;
static bool no_flushes; /* the disk ignores them */

void crash_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

uint32_t crash_rnd(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 16) % below);
}

void crash_seed(void)
{
	state = seed;
}

/* ---- the record ------------------------------------------------------------------------------------------------------------ */

struct event {
	enum hio_event ev;
	uint64_t off, len;
	uint8_t *data;
};

static struct lock mu = LOCK_INIT;
static struct event *events;
static unsigned nevents, room;
static atomic_bool recording;

static int record(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	struct event e = {.ev = ev, .off = off, .len = len};
	uint8_t *p;

	(void)arg;
	if (ev == HIO_EV_READ || (ev == HIO_EV_FLUSH && no_flushes) || !atomic_load(&recording))
		return 0;
	if (ev == HIO_EV_WRITE) {
		p = e.data = malloc(len);
		if (!p)
			crash_die("no memory for the record");
		for (int i = 0; i < niov; i++) {
			memcpy(p, iov[i].iov_base, iov[i].iov_len);
			p += iov[i].iov_len;
		}
	}
	lock_take(&mu);
	if (nevents == room) {
		room = room ? room * 2 : 4096;
		events = reallocarray(events, room, sizeof *events);
		if (!events)
			crash_die("no memory for the record");
	}
	events[nevents++] = e;
	lock_drop(&mu);
	return 0;
}

unsigned crash_now(void)
{
	unsigned n;

	lock_take(&mu);
	n = nevents;
	lock_drop(&mu);
	return n;
}

/* What was recorded is put away for another record; and back, with the other one gone. */
struct tape {
	struct event *events;
	unsigned nevents, room;
};

static struct tape tape_take(void)
{
	struct tape t = {events, nevents, room};

	events = NULL;
	nevents = room = 0;
	return t;
}

static void tape_put(const struct tape *t)
{
	for (unsigned i = 0; i < nevents; i++)
		free(events[i].data);
	free(events);
	events = t->events;
	nevents = t->nevents;
	room = t->room;
}

/* ---- the disk ---------------------------------------------------------------------------------------------------------------- */

struct disk {
	uint8_t *b;
	uint64_t size, room;
};

static struct disk base;

static void disk_write(struct disk *d, uint64_t off, const uint8_t *p, uint64_t n)
{
	if (!range_ok(off, n, d->room))
		crash_die("the image grew beyond %llu bytes", (unsigned long long)d->room);
	memcpy(d->b + off, p, n);
	d->size = max_u64(d->size, off + n);
}

enum how { ORDER, SUBSET, TORN, HOWS };

static void apply(struct disk *d, const struct event *e, enum how how)
{
	if (how != ORDER && crash_rnd(2))
		return;
	switch (e->ev) {
	case HIO_EV_WRITE:
		for (uint64_t at = 0; at < e->len; at += 512)
			if (how != TORN || crash_rnd(10) < 7)
				disk_write(d, e->off + at, e->data + at, min_u64(512, e->len - at));
		break;
	case HIO_EV_PUNCH:
		memset(d->b + e->off, 0, min_u64(e->len, d->room - e->off));
		break;
	case HIO_EV_TRUNCATE:
		if (e->off < d->size)
			memset(d->b + e->off, 0, d->size - e->off);
		d->size = e->off;
		break;
	default:
		break;
	}
}

static void disk_new(struct disk *d, uint64_t bytes)
{
	d->b = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->b == MAP_FAILED)
		crash_die("no memory for a disk");
	d->size = 0;
	d->room = bytes;
}

static void disk_copy(struct disk *to, const struct disk *from)
{
	memcpy(to->b, from->b, from->size);
	if (to->size > from->size)
		memset(to->b + from->size, 0, to->size - from->size);
	to->size = from->size;
}

static void disk_load(struct disk *d, const char *path)
{
	FILE *f = fopen(path, "re");

	if (!f)
		crash_die("%s: %s", path, strerror(errno));
	d->size = fread(d->b, 1, d->room, f);
	fclose(f);
}

/* Zeros are left out: most of an image is. */
static void disk_store(const struct disk *d, const char *path)
{
	static const uint8_t zeros[65536];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)d->size))
		crash_die("%s: %s", path, strerror(errno));
	for (uint64_t at = 0; at < d->size; at += sizeof zeros) {
		size_t n = (size_t)min_u64(sizeof zeros, d->size - at);

		if (memcmp(d->b + at, zeros, n) && pwrite(fd, d->b + at, n, (off_t)at) != (ssize_t)n)
			crash_die("%s: %s", path, strerror(errno));
	}
	close(fd);
}

/* ---- other programs ----------------------------------------------------------------------------------------------------------- */

int crash_run(const char *fmt, ...)
{
	char cmd[1024], full[1200];
	va_list ap;
	int st;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	snprintf(full, sizeof full, "PATH=$PATH:/sbin:/usr/sbin; { %s; } %s", cmd,
		 quiet_tools ? ">/dev/null 2>&1 </dev/null" : "1>&2 </dev/null");
	st = system(full);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------------ */

static bool keep_unlinked; /* files without a name stay */

void crash_open(struct crash_fs *c, const char *path, bool write)
{
	struct vhd_open_opts o = {.flags = (write ? (unsigned)VHD_OPEN_WRITE : 0u) | VHD_OPEN_CACHED};
	struct fs_mount_opts mo = {.read_only = !write, .keep_unlinked = keep_unlinked};
	struct why why = {{0}};
	int err;

	memset(c, 0, sizeof *c);
	err = vhd_open(&c->vhd, path, &o, &why);
	if (!err)
		err = cache_new(&c->cache, 16u << 20);
	if (!err)
		err = cache_attach(c->cache, c->vhd, 0, vhd_size(c->vhd), &c->dev);
	if (!err)
		err = ext4_driver.mount(c->dev, &mo, &c->fs, &why);
	if (!err && write && c->fs->read_only)
		err = -EROFS;
	if (err)
		snprintf(c->problem, sizeof c->problem, "opening: %s: %.400s", strerror(-err), why.line);
	else
		c->problem[0] = '\0';
}

bool crash_close(struct crash_fs *c)
{
	int err = c->fs ? c->fs->ops->unmount(c->fs) : 0, e;

	e = c->dev ? cache_detach(c->dev) : 0;
	err = err ? err : e;
	cache_free(c->cache);
	e = c->vhd ? vhd_close(c->vhd) : 0;
	err = err ? err : e;
	if (err && !c->problem[0])
		snprintf(c->problem, sizeof c->problem, "closing: %s", strerror(-err));
	return !err;
}

/* ---- making the image ---------------------------------------------------------------------------------------------------------- */

static void copy_into(const char *raw, const char *path)
{
	struct vhd_open_opts o = {.flags = VHD_OPEN_WRITE | VHD_OPEN_CACHED};
	static uint8_t b[1 << 20];
	struct why why;
	struct vhd *v;
	FILE *f = fopen(raw, "re");
	uint64_t at = 0;
	size_t n;

	if (!f || vhd_open(&v, path, &o, &why))
		crash_die("%s or %s cannot be opened", raw, path);
	for (; (n = fread(b, 1, sizeof b, f)) > 0; at += n)
		for (size_t i = 0; i < n; i += 4096) {
			static const uint8_t zeros[4096];

			if (memcmp(b + i, zeros, 4096) && vhd_write(v, b + i, 4096, at + i))
				crash_die("%s cannot be written", path);
		}
	fclose(f);
	if (vhd_close(v))
		crash_die("%s cannot be closed", path);
}

void crash_make(const struct workload *w, const char *path)
{
	struct vhd_create_opts o = {
		.type = w->dynamic ? VHD_DYNAMIC : VHD_FIXED,
		.size = (uint64_t)w->mib << 20,
		.block_size = w->dynamic ? 512u << 10 : 0,
		.exact = true,
	};
	char raw[80];
	struct why why = {{0}};

	if (vhd_create(path, &o, &why))
		crash_die("%s", why.line);
	snprintf(raw, sizeof raw, "%s/raw", dir);
	if (crash_run("truncate -s %uM %s && mke2fs -q -F -E nodiscard,lazy_itable_init=1 -E hash_seed=%s %s %s",
		      w->mib, raw, "11111111-2222-3333-4444-555555555555", w->mkfs, raw))
		crash_die("mke2fs %s failed", w->mkfs);
	if (w->dynamic)
		copy_into(raw, path);
	else if (crash_run("dd if=%s of=%s conv=notrunc bs=1M", raw, path))
		crash_die("dd failed");
	unlink(raw);
}

/* ---- one cut -------------------------------------------------------------------------------------------------------------------- */

static void to_raw(const struct workload *w, const char *path, const char *raw)
{
	struct vhd_open_opts o = {.flags = VHD_OPEN_CACHED};
	struct why why;
	struct vhd *v;
	uint64_t size = (uint64_t)w->mib << 20;
	uint8_t *b = malloc(size);
	FILE *f = fopen(raw, "we");

	if (!b || !f || vhd_open(&v, path, &o, &why) || vhd_read(v, b, size, 0) || fwrite(b, 1, size, f) != size)
		crash_die("%s cannot be copied", path);
	free(b);
	fclose(f);
	vhd_close(v);
}

/* e2fsck on the file system in an image. */
int crash_fsck(const struct workload *w, const char *path, const char *how)
{
	char raw[100];
	int rc;

	if (!w->dynamic)
		return crash_run("e2fsck %s %s", how, path);
	snprintf(raw, sizeof raw, "%s.raw", path);
	to_raw(w, path, raw);
	rc = crash_run("e2fsck %s %s", how, raw);
	if (!strchr(how, 'n')) /* it has been changed: judge that */
		rc = crash_run("e2fsck -fn %s", raw) | (rc & ~1);
	unlink(raw);
	return rc;
}

/* A copy of the footer may be torn: the other one is good then. Nothing else may be amiss. */
static void found(void *arg, const struct vhd_finding *f)
{
	char *problem = arg;

	if (f->severity == VHD_ERROR && !f->can_repair)
		snprintf(problem, PROBLEM, "the image: %s at byte %llu: %s", f->what, (unsigned long long)f->off,
			 f->text);
}

static bool image_whole(const char *path, char *problem)
{
	struct vhd_check_result r;
	struct why why = {{0}};

	if (vhd_check(path, found, problem, &r, &why))
		snprintf(problem, PROBLEM, "the image: %.400s", why.line);
	return !problem[0];
}

/* Torn in the middle, the superblock of ext4 - two sectors, the checksum in the second - stops e2fsck before it comes to the
 * journal, which has it whole. We read the journal first. */
static bool superblock_torn(const char *path)
{
	struct vhd_open_opts o = {.flags = VHD_OPEN_CACHED};
	struct ext2_super_block s;
	struct vhd *v;
	bool torn;

	if (vhd_open(&v, path, &o, NULL))
		return false;
	if (vhd_read(v, &s, sizeof s, SUPERBLOCK_OFFSET))
		crash_die("%s cannot be read", path);
	vhd_close(v);
	torn = s.s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM &&
	       ext2fs_crc32c_le(~0u, (unsigned char *)&s, offsetof(struct ext2_super_block, s_checksum)) !=
		       s.s_checksum;
	return torn;
}

/* Opened and closed, by one that keeps files without a name: they are on the list of orphans afterwards. */
static void open_keeping(const char *path, bool grow)
{
	struct crash_fs c;

	keep_unlinked = true;
	crash_open(&c, path, true);
	if (grow && !c.problem[0])
		model_grow(&c, true);
	crash_close(&c);
	keep_unlinked = false;
}

static void dump_it(const struct workload *w, const struct disk *d, unsigned n, struct fs *fs)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s-%u.vhd", dump, w->name, n);
	disk_store(d, path);
	snprintf(path, sizeof path, "%s/%s-%u.list", dump, w->name, n);
	f = fopen(path, "we");
	if (!f)
		crash_die("%s: %s", path, strerror(errno));
	model_list(fs, f);
	fclose(f);
}

/* What grew is what it was and zeros, on the disk too. */
static void look_again(const char *path, unsigned cut, char *problem)
{
	struct crash_fs c;

	crash_open(&c, path, false);
	if (!c.problem[0])
		model_check(&c, cut);
	crash_close(&c);
	if (c.problem[0])
		snprintf(problem, PROBLEM, "grown: %.500s", c.problem);
}

/* What is wrong after a cut; an empty string: nothing. */
static void judge(const struct workload *w, const struct disk *d, unsigned cut, unsigned n, const char *path,
		  char *problem)
{
	struct crash_fs c;
	bool torn, opened;

	problem[0] = '\0';
	disk_store(d, path);
	if (w->dynamic && !image_whole(path, problem))
		return;
	if (n % 4 == 0 && !superblock_torn(path)) {
		int rc = w->dynamic ? crash_fsck(w, path, "-fp") : crash_run("e2fsck -fp %s", path);

		if (!w->dynamic && rc <= 1)
			rc = crash_run("e2fsck -fn %s", path);
		if (rc & ~1) {
			snprintf(problem, PROBLEM, "e2fsck -fp and then -fn on its own replay say %d", rc);
			return;
		}
		disk_store(d, path);
	}
	torn = superblock_torn(path);
	if (n % AGAIN == 2)
		open_keeping(path, false);
	if (n % AGAIN == 3) { /* only to look: the same, and nothing is written */
		crash_open(&c, path, false);
		if (!c.problem[0])
			model_check(&c, cut);
		else if (torn)
			c.problem[0] = '\0';
		crash_close(&c);
		if (c.problem[0]) {
			snprintf(problem, PROBLEM, "read-only: %.500s", c.problem);
			return;
		}
	}
	crash_open(&c, path, true);
	opened = !c.problem[0];
	if (opened)
		model_check(&c, cut);
	if (opened && dump)
		dump_it(w, d, n, c.fs);
	else if (opened && !c.problem[0])
		model_grow(&c, false);
	else if (torn)
		c.problem[0] = '\0'; /* the write that opens or ends a mount, which no journal covers */
	crash_close(&c);
	snprintf(problem, PROBLEM, "%s", c.problem);
	if (!problem[0] && opened && !dump)
		look_again(path, cut, problem);
	if (!problem[0] && opened && crash_fsck(w, path, "-fn"))
		snprintf(problem, PROBLEM, "e2fsck -fn after our replay is not content");
}

/* The power fails again while the disk is opened, replayed, its files made longer, and closed. @work is left as that finds it. */
static void cut_again(struct disk *work, enum how how, const char *path)
{
	struct tape first = tape_take();
	unsigned cut, last = 0;

	disk_store(work, path);
	hio_set_default_hook(record, NULL);
	atomic_store(&recording, true);
	open_keeping(path, true);
	atomic_store(&recording, false);
	hio_set_default_hook(NULL, NULL);
	cut = crash_rnd(nevents + 1);
	for (unsigned i = 0; i + 1 < cut; i++)
		if (events[i].ev == HIO_EV_FLUSH)
			last = i;
	for (unsigned i = 0; i < cut; i++)
		apply(work, &events[i], i < last ? ORDER : how);
	tape_put(&first);
}

static unsigned one_cut(const struct workload *w, struct disk *stable, unsigned *flushed, struct disk *work,
			unsigned cut, unsigned n, const char *path)
{
	enum how how = (enum how)(n % HOWS);
	char problem[PROBLEM];
	unsigned last = *flushed;

	/* Everything before the last flush that returned: it is followed by another event, or is the cut itself. */
	for (unsigned i = *flushed; i + 1 < cut; i++)
		if (events[i].ev == HIO_EV_FLUSH)
			last = i;
	for (; *flushed < last; ++*flushed)
		apply(stable, &events[*flushed], ORDER);
	disk_copy(work, stable);
	state = seed * 1000003 + n + 1;
	for (unsigned i = last; i < cut; i++)
		apply(work, &events[i], how);
	model_not_grown();
	if (n % AGAIN == 1)
		cut_again(work, how, path);
	judge(w, work, cut, n, path, problem);
	if (!problem[0])
		return 0;
	printf("%s: cut %u of %u (number %u, %s, seed %llu): %s\n", w->name, cut, nevents, n,
	       how == ORDER    ? "in order"
	       : how == SUBSET ? "a part"
			       : "torn",
	       (unsigned long long)seed, problem);
	fflush(stdout);
	if (keep) {
		char kept[200];

		snprintf(kept, sizeof kept, "%s/%s-%u.vhd", keep, w->name, n);
		disk_store(work, kept);
	}
	return 1;
}

static unsigned run_cuts(const struct workload *w, unsigned cuts, unsigned job, unsigned jobs, unsigned only)
{
	struct disk stable, work;
	unsigned flushed = 0, broken = 0;
	char path[96];

	snprintf(path, sizeof path, "%s/cut-%u.vhd", dir, job);
	disk_new(&stable, base.room);
	disk_new(&work, base.room);
	disk_copy(&stable, &base);
	for (unsigned n = job; n < cuts; n += jobs)
		if (only == UINT32_MAX || only == n)
			broken += one_cut(w, &stable, &flushed, &work, (unsigned)((uint64_t)(n + 1) * nevents / cuts),
					  n, path);
	unlink(path);
	return broken;
}

unsigned crash_wait(const struct workload *w, const pid_t *pid, unsigned jobs)
{
	unsigned broken = 0;

	for (unsigned i = 0; i < jobs; i++) {
		int st;

		waitpid(pid[i], &st, 0);
		broken += WIFEXITED(st) ? (unsigned)WEXITSTATUS(st) : 1;
		if (!WIFEXITED(st))
			printf("%s: a judge died of signal %d\n", w->name, WTERMSIG(st));
	}
	return broken;
}

static unsigned fork_cuts(const struct workload *w, unsigned cuts, unsigned jobs, unsigned only)
{
	unsigned broken = 0;
	pid_t pid[16];

	fflush(stdout);
	for (unsigned i = 0; i < jobs; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			crash_die("fork: %s", strerror(errno));
		if (!pid[i]) {
			broken = run_cuts(w, cuts, i, jobs, only);
			_exit(broken > 100 ? 100 : (int)broken);
		}
	}
	return crash_wait(w, pid, jobs);
}

static unsigned run_workload(const struct workload *w, unsigned cuts, unsigned jobs, unsigned only)
{
	struct crash_fs c;
	char path[96];
	unsigned broken;

	snprintf(path, sizeof path, "%s/disk.vhd", dir);
	crash_seed();
	crash_make(w, path);
	disk_new(&base, ((uint64_t)w->mib << 21) + (64u << 20));
	disk_load(&base, path);
	hio_set_default_hook(record, NULL);
	atomic_store(&recording, true);
	crash_open(&c, path, true);
	if (c.problem[0])
		crash_die("%s: %s", w->name, c.problem);
	model_run(w, &c, false);
	if (!crash_close(&c))
		crash_die("%s: %s", w->name, c.problem);
	atomic_store(&recording, false);
	hio_set_default_hook(NULL, NULL);
	broken = fork_cuts(w, cuts, jobs, only);
	printf("%-12s %6u events, %u cuts, %u broken promises\n", w->name, nevents, cuts, broken);
	for (unsigned i = 0; i < nevents; i++)
		free(events[i].data);
	nevents = 0;
	munmap(base.b, base.room);
	unlink(path);
	return broken;
}

/* Rules that are broken on purpose: this program must notice. */
static bool mutate(const char *rule)
{
	static const struct {
		const char *rule;
		unsigned mutation;
	} rules[] = {
		{"flush", 0},
		{"commit-early", JOURNAL_COMMIT_EARLY},
		{"no-revoke", JOURNAL_NO_REVOKE},
		{"reuse-early", JOURNAL_REUSE_EARLY},
		{"no-order", JOURNAL_NO_ORDER},
		{"dirty-tail", JOURNAL_DIRTY_TAIL},
		{"zeros-later", JOURNAL_ZEROS_LATER},
	};

	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
		if (!strcmp(rule, rules[i].rule)) {
			ext4_journal_mutation = rules[i].mutation;
			no_flushes = !rules[i].mutation;
			return true;
		}
	return false;
}

static const struct option options[] = {
	{"cuts", required_argument, NULL, 'c'},     {"seed", required_argument, NULL, 's'},
	{"workload", required_argument, NULL, 'w'}, {"jobs", required_argument, NULL, 'j'},
	{"keep", required_argument, NULL, 'k'},     {"only", required_argument, NULL, 'o'},
	{"faults", required_argument, NULL, 'f'},   {"mutate", required_argument, NULL, 'm'},
	{"dump", required_argument, NULL, 'd'},     {"list", no_argument, NULL, 'l'},
	{"verbose", no_argument, NULL, 'v'},        {0},
};

int main(int argc, char **argv)
{
	unsigned cuts = CUTS, jobs = 2, total = 0, broken = 0, chosen = 0, only = UINT32_MAX, of = 0, faults = 0;
	const char *name = NULL;
	int o;

	log_open("crash");
	log_level = LOG_LVL_WARN;
	hio_allow_uring(false); /* the judges are forked: a ring would be shared */
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (o) {
		case 'c':
			cuts = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 10);
			break;
		case 'w':
			name = optarg;
			break;
		case 'j':
			jobs = (unsigned)strtoul(optarg, NULL, 10) % 16;
			break;
		case 'k':
			keep = optarg;
			break;
		case 'o':
			only = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'f':
			faults = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'd':
			dump = optarg;
			break;
		case 'm':
			if (!mutate(optarg))
				crash_die("no rule %s", optarg);
			break;
		case 'v':
			quiet_tools = false;
			break;
		case 'l':
			for (const struct workload *w = workloads; w->name; w++)
				printf("%s\n", w->name);
			return 0;
		default:
			return 2;
		}
	jobs = jobs ? jobs : 1;
	snprintf(dir, sizeof dir, "/dev/shm/vhdnfs-crash-XXXXXX");
	if (!mkdtemp(dir)) {
		snprintf(dir, sizeof dir, "/tmp/vhdnfs-crash-XXXXXX");
		if (!mkdtemp(dir))
			crash_die("no folder for images: %s", strerror(errno));
	}
	for (const struct workload *w = workloads; w->name; w++)
		of += !name || !strcmp(name, w->name);
	if (!of)
		crash_die("no workload %s", name);
	for (const struct workload *w = workloads; w->name; w++)
		if (!name || !strcmp(name, w->name)) {
			unsigned all = faults ? faults : cuts, n = all / of + (chosen++ < all % of);

			broken += faults ? crash_faults(w, n, jobs, only, dir) : run_workload(w, n, jobs, only);
			total += n;
		}
	rmdir(dir);
	printf("%u %s, %u broken promises\n", total, faults ? "faults" : "cuts", broken);
	return broken != 0;
}
