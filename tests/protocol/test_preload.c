/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_preload.c - what the preload library says to servers, good ones and bad ones, without a mount
 *
 * Local files stand for files on the server: statx() and what preload_mount.c would find out are this program's own. The rest is
 * the library's: its queue, its thread, its sessions.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/protocol/server.h"
#include "tools/control.h"
#include "tools/preload.h"

#define MINOR 77u

static char control[64];
static const char *const options[] = {"--no-root-squash", "--control", control, "--lease", "6", NULL};

/* ---- the program's side ---------------------------------------------------------------------------------------------------------- */

/* Local files and their numbers on the server. */
static struct {
	uint64_t ino, fileid;
	char path[32];
} known[4];

int statx(int dir, const char *path, int flags, unsigned mask, struct statx *st)
{
	if (syscall(SYS_statx, dir, path, flags, mask, st) < 0)
		return -1;
	for (size_t i = 0; i < 4; i++)
		if (known[i].ino && st->stx_ino == known[i].ino) {
			st->stx_dev_major = 0;
			st->stx_dev_minor = MINOR;
			st->stx_ino = known[i].fileid;
		}
	return 0;
}

bool pre_path_of(int fd, char to[PATH_MAX])
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	for (size_t i = 0; i < 4; i++)
		if (known[i].ino == st.st_ino) {
			snprintf(to, PATH_MAX, "/mnt%s", known[i].path);
			return true;
		}
	return false;
}

bool pre_identify(int fd, struct pre_id *id)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_INO, &st) < 0 || st.stx_dev_minor != MINOR)
		return false;
	*id = (struct pre_id){.ino = st.stx_ino, .minor = MINOR, .mount = server_port()};
	return true;
}

/* Mounts are numbered by port. */
bool pre_mount_find(uint32_t id, struct pre_mount *m)
{
	memset(m, 0, sizeof *m);
	snprintf(m->point, sizeof m->point, "/mnt");
	snprintf(m->export, sizeof m->export, "/disk");
	snprintf(m->host, sizeof m->host, "127.0.0.1");
	snprintf(m->port, sizeof m->port, "%u", id);
	return true;
}

bool pre_mount_path(const struct pre_mount *m, const char *path, char *to, size_t cap)
{
	return snprintf(to, cap, "%s%s", m->export, path + strlen(m->point)) < (int)cap;
}

static void hint(int fd, uint32_t hints, uint64_t off, uint64_t len)
{
	struct pre_id id;

	ck_assert(pre_on() && pre_identify(fd, &id));
	pre_note_fd(fd);
	pre_send_hint(fd, NULL, &id, hints, off, len);
}

static void hang_up(int fd)
{
	bool noted = pre_forget_fd(fd);

	close(fd);
	if (noted)
		pre_send_closed();
}

/* ---- the server's side ----------------------------------------------------------------------------------------------------------- */

/* Around a restart nobody may be there for a moment. */
static json_t *ask(json_t *what)
{
	struct why why = {.line = ""};
	json_t *out = NULL;
	int err;

	for (int i = 0; (err = control_ask(control, what, &out, &why)) == -ENOENT && i < 100; i++)
		usleep(50000);
	ck_assert_msg(err == 0, "%s", why.line);
	json_decref(what);
	return out;
}

/* "HINTS of the file / HINTS of each open", each by its initials. */
static void say(json_t *list, char *to)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		strncat(to, json_string_value(json_array_get(list, i)), 3);
}

static void explain(const char *path, char to[200])
{
	json_t *o = ask(json_pack("{s:s, s:s}", "do", "explain", "path", path)), *opens = json_object_get(o, "opens");

	to[0] = '\0';
	say(json_object_get(o, "hints"), to);
	for (size_t i = 0; i < json_array_size(opens); i++) {
		strcat(to, "/");
		say(json_object_get(json_array_get(opens, i), "hints"), to);
	}
	json_decref(o);
}

static void until(const char *path, const char *want)
{
	char is[200];

	for (int i = 0; i < 600; i++) {
		explain(path, is);
		if (strcmp(is, want) == 0)
			return;
		usleep(50000);
	}
	ck_abort_msg("%s: %s, expected %s", path, is, want);
}

static json_int_t figure(const char *group, const char *name, const char *field)
{
	json_t *o = ask(json_pack("{s:s}", "do", "stat")), *g = json_object_get(o, group);
	json_int_t n = json_integer_value(field ? json_object_get(json_object_get(g, name), field)
						: json_object_get(g, name));

	json_decref(o);
	return n;
}

/* ---- files ----------------------------------------------------------------------------------------------------------------------- */

static int local(const char *name)
{
	char path[128];

	snprintf(path, sizeof path, "%s/%s", server_dir(), name);
	return open(path, O_RDWR | O_CREAT, 0600);
}

static void learn(size_t i, struct nfsc *c, const char *name, uint32_t mode)
{
	static uint32_t word[2] = {0, 1u << (FATTR4_MODE - 32)};
	nfs_argop4 op[2] = {{.argop = OP_PUTFH}, {.argop = OP_GETATTR}},
		   set[2] = {{.argop = OP_PUTFH}, {.argop = OP_SETATTR}};
	uint32_t wire = htonl(mode);
	struct nfs_attrs a;
	COMPOUND4res res;
	struct stat st;
	nfs_fh4 fh;
	char path[64];
	int fd = local(name);

	snprintf(path, sizeof path, "/disk/%s", name);
	ck_assert_int_eq(nfsc_lookup(c, "/disk", &fh, NULL), 0);
	ck_assert_int_eq(nfsc_create(c, &fh, name, NULL), 0);
	ck_assert_int_eq(nfsc_lookup(c, path, &fh, NULL), 0);
	set[0] = op[0] = nfsc_putfh(&fh);
	set[1].nfs_argop4_u.opsetattr.obj_attributes = (fattr4){{2, word}, {4, (char *)&wire}};
	ck_assert_int_eq(nfsc_call(c, set, 2, &res), 0);
	nfsc_free(&res);
	op[1].nfs_argop4_u.opgetattr.attr_request = nfs_attrs_mask();
	ck_assert_int_eq(nfsc_call(c, op, 2, &res), 0);
	ck_assert(nfs_attrs_decode(
		&res.resarray.resarray_val[2].nfs_resop4_u.opgetattr.GETATTR4res_u.resok4.obj_attributes, &a));
	nfsc_free(&res);
	ck_assert_int_eq(fstat(fd, &st), 0);
	known[i].ino = st.st_ino;
	known[i].fileid = a.fileid;
	snprintf(known[i].path, sizeof known[i].path, "/%s", name);
	close(fd);
}

static void setup(void)
{
	struct nfs_url u = {.host = "127.0.0.1"};
	struct why why = {.line = ""};
	struct nfsc *c;

	snprintf(control, sizeof control, "/tmp/vhdnfs-preload-%d", (int)getpid());
	server_start(options);
	snprintf(u.port, sizeof u.port, "%u", server_port());
	ck_assert_msg(nfsc_open_brief(&c, &u, 60, &why) == 0, "%s", why.line);
	learn(0, c, "one", 0600);
	learn(1, c, "two", 0600);
	learn(2, c, "secret", 0);
	nfsc_close(c);
}

static void teardown(void)
{
	server_stop();
}

/* ---- good servers ---------------------------------------------------------------------------------------------------------------- */

START_TEST(hints_hold_until_the_last_descriptor_is_closed)
{
	int one = local("one"), two = local("two"), copy;

	hint(one, PRE_RANDOM, 0, 0);
	hint(two, PRE_SEQUENTIAL, 0, 4096);
	until("/disk/one", "RAN/RAN");
	until("/disk/two", "SEQ/SEQ");
	hint(one, PRE_NOREUSE, 0, 0);
	until("/disk/one", "RANNOR/RANNOR");
	copy = dup(one);
	hang_up(one);
	hang_up(two);
	until("/disk/two", "");
	until("/disk/one", "RANNOR/RANNOR");
	hang_up(copy); /* never heard of, until the other was closed */
	until("/disk/one", "");
	ck_assert_int_eq(figure("clients", "opens", NULL), 0);
	pre_end();
	ck_assert_int_eq(figure("clients", "sessions", NULL), 0);
	ck_assert_int_eq(figure("clients", "clients", NULL), 0);
}
END_TEST

START_TEST(mappings_hold_a_file_open_too)
{
	int fd = local("one");
	char *p;

	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	p = mmap(NULL, 1 << 20, PROT_READ, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(p, MAP_FAILED);
	pre_map_add(p, 1 << 20, fd, 0);
	hint(fd, PRE_NORMAL, 0, 0);
	hang_up(fd);
	pre_map_hint(p + 4096, 8192, PRE_SEQUENTIAL);
	until("/disk/one", "SEQ/SEQ");
	pre_map_remove(p, 4096);
	pre_map_remove(p + 8192, 4096);
	until("/disk/one", "SEQ/SEQ");
	pre_map_hint(p + 4096, 4096, PRE_RANDOM);
	until("/disk/one", "RAN/RAN");
	pre_map_hint(p, 4096, PRE_SEQUENTIAL); /* nothing there */
	pre_map_hint(p + 12288, 1 << 19, PRE_SEQUENTIAL);
	pre_map_remove(p + 4096, 4096);
	munmap(p, 1 << 20);
	until("/disk/one", "");
}
END_TEST

/* With credentials that the process has not had from the beginning. */
START_TEST(a_file_that_may_not_be_opened_gets_no_hint)
{
	int fd = local("secret"), two = local("two"), status;
	pid_t pid;

	if (geteuid() != 0)
		return;
	pid = fork();
	if (pid == 0) {
		hint(two, PRE_SEQUENTIAL, 0, 0);
		until("/disk/two", "SEQ/SEQ");
		if (setresuid(65534, 65534, 65534) < 0)
			_exit(1);
		hint(fd, PRE_SEQUENTIAL, 0, 0);
		pre_end();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	until("/disk/two", "");
	until("/disk/secret", "");
}
END_TEST

START_TEST(another_file_of_that_name_is_not_meant)
{
	int one = local("one"), two = local("two");

	strcpy(known[0].path, "/two"); /* renamed, a moment ago */
	hint(one, PRE_RANDOM, 0, 0);
	strcpy(known[0].path, "/nothing");
	hint(one, PRE_RANDOM, 0, 0);
	hint(two, PRE_SEQUENTIAL, 0, 0);
	until("/disk/two", "SEQ/SEQ");
	ck_assert_int_eq(figure("operations", "IO_ADVISE", "count"), 1);
	hang_up(one);
	hang_up(two);
}
END_TEST

/* ThreadSanitizer allows no threads in such children. */
#ifdef __SANITIZE_THREAD__
#define THREADS_AFTER_FORK false
#else
#define THREADS_AFTER_FORK true
#endif

START_TEST(children_speak_for_themselves)
{
	int fd = local("one"), status;
	pid_t pid;

	if (!THREADS_AFTER_FORK)
		return;
	hint(fd, PRE_RANDOM, 0, 0);
	until("/disk/one", "RAN/RAN");
	pid = fork();
	if (pid == 0) {
		int two = local("two");

		hint(two, PRE_SEQUENTIAL, 0, 0);
		until("/disk/two", "SEQ/SEQ");
		pre_end();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	until("/disk/two", "");
	until("/disk/one", "RAN/RAN");
	pid = vfork();
	if (pid == 0)
		_exit(pre_on() || pre_forget_fd(fd));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	hang_up(fd);
	until("/disk/one", "");
}
END_TEST

/* Nobody says anything: the lease is kept, the loss is noticed, what held is said again when the grace period is over. */
START_TEST(what_held_holds_again_after_a_restart)
{
	int fd = local("one");

	hint(fd, PRE_SEQUENTIAL | PRE_NOREUSE, 0, 0);
	hint(fd, PRE_WILLNEED, 0, 4096);
	until("/disk/one", "SEQNOR/SEQNOR");
	server_restart();
	until("/disk/one", "SEQNOR/SEQNOR");
	server_kill();
	server_again();
	hint(fd, PRE_RANDOM, 0, 0);
	until("/disk/one", "RANNOR/RANNOR");
	hang_up(fd);
	until("/disk/one", "");
}
END_TEST

/* More than the queue holds, from several threads. What gets through is said once, and nothing is left of it. */
static void *many(void *arg)
{
	for (unsigned i = 0; i < 3000; i++) {
		int fd = local(i % 2 ? "one" : "two");

		hint(fd, 1u << "\0\1\3\4\6\7"[i % 6], i * 4096, 4096);
		hang_up(fd);
	}
	return arg;
}

START_TEST(a_flood_of_hints_is_survived)
{
	pthread_t t[4];
	int fd = local("one");

	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, many, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	usleep(100000);
	hint(fd, PRE_NORMAL, 0, 0);
	hang_up(fd);
	until("/disk/one", "");
	until("/disk/two", "");
	ck_assert_int_gt(figure("operations", "IO_ADVISE", "count"), 0);
	ck_assert_int_eq(figure("operations", "IO_ADVISE", "errors"), 0);
	ck_assert_int_eq(figure("rpc", "bad_records", NULL), 0);
}
END_TEST

/* ---- bad servers ----------------------------------------------------------------------------------------------------------------- */

/* Whoever calls gets @bytes for every call, @xid put where RPC has it, and then perhaps the end of the connection. */
struct liar {
	int fd;
	const uint8_t *bytes;
	size_t len;
	bool hangs_up;
	atomic_int calls;
};

static void *lie(void *arg)
{
	struct liar *l = arg;
	int c;

	while ((c = accept(l->fd, NULL, NULL)) >= 0) {
		uint8_t buf[4096], out[4096];
		ssize_t n;

		while ((n = recv(c, buf, sizeof buf, 0)) >= 8) {
			atomic_fetch_add(&l->calls, 1);
			memcpy(out, l->bytes, l->len);
			if (l->len >= 8)
				memcpy(out + 4, buf + 4, 4);
			if (l->len && send(c, out, l->len, MSG_NOSIGNAL) < 0)
				break;
			if (l->hangs_up)
				break;
		}
		close(c);
	}
	return NULL;
}

static unsigned listen_on(struct liar *l)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof a;

	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(l->fd, (struct sockaddr *)&a, len), 0);
	ck_assert_int_eq(listen(l->fd, 5), 0);
	ck_assert_int_eq(getsockname(l->fd, (struct sockaddr *)&a, &len), 0);
	return ntohs(a.sin_port);
}

/* Words after the record mark: xid, REPLY, MSG_ACCEPTED, verifier (0, 0), SUCCESS, then COMPOUND4res. */
#define HEAD 0, 1, 0, 0, 0, 0

static const struct {
	uint32_t mark;
	bool hangs_up;
	unsigned n;
	uint32_t words[20];
} lies[] = {
	{0, true, 0, {0}},                                                   /* no record at all */
	{0x80000000, false, 0, {0}},                                         /* an empty one */
	{0x80000004, true, 1, {0}},                                          /* only an xid */
	{0xffffffff, false, 1, {0}},                                         /* a record of 2 GiB */
	{0x7fffffff, false, 1, {0}},                                         /* a fragment of that */
	{0x80000018, true, 6, {HEAD}},                                       /* RPC and no more */
	{0x80000018, true, 6, {0, 0, 0, 0, 0, 0}},                           /* a call */
	{0x80000018, true, 6, {0, 1, 1, 1, 1, 0}},                           /* denied */
	{0x80000018, true, 6, {0, 1, 0, 6, 0xffffffff, 0}},                  /* a verifier of 4 GiB */
	{0x80000018, true, 6, {0, 1, 0, 0, 0, 2}},                           /* another program's version */
	{0x80000024, true, 9, {HEAD, 0, 0xfffffffc, 0}},                     /* a tag of 4 GiB */
	{0x80000024, true, 9, {HEAD, 0, 0, 0x7fffffff}},                     /* 2^31 results */
	{0x80000024, true, 9, {HEAD, 0, 0, 0x01000000}},                     /* 2.5 GiB of them */
	{0x80000024, true, 9, {HEAD, 0, 0, 1}},                              /* one, which is not there */
	{0x80000024, true, 9, {HEAD, 0, 0, 0}},                              /* success, without any */
	{0x8000002c, true, 11, {HEAD, 0, 0, 1, 53, 0}},                      /* SEQUENCE's, and cut off */
	{0x8000002c, true, 11, {HEAD, 0, 0, 1, 24, 0}},                      /* another operation's, of success */
	{0x8000002c, true, 11, {HEAD, 10006, 0, 1, 42, 10006}},              /* SERVERFAULT */
	{0x80000048, true, 18, {HEAD, 0, 0, 1, 42, 0, 0, 1, 1, 0, 0, 0, 1}}, /* EXCHANGE_ID's, and cut off */
};

START_TEST(servers_that_lie_get_no_hints)
{
	uint8_t bytes[4 + sizeof lies[_i].words];
	struct liar l = {.bytes = bytes, .len = 4 + 4 * lies[_i].n, .hangs_up = lies[_i].hangs_up};
	struct pre_id id;
	pthread_t t;
	int fd = local("one");

	raw_put32(bytes, lies[_i].mark);
	for (unsigned i = 0; i < lies[_i].n; i++)
		raw_put32(bytes + 4 + 4 * i, lies[_i].words[i]);
	if (!lies[_i].mark)
		l.len = 0;
	ck_assert(pre_identify(fd, &id));
	id.mount = listen_on(&l);
	ck_assert_int_eq(pthread_create(&t, NULL, lie, &l), 0);
	pre_send_hint(fd, NULL, &id, PRE_RANDOM, 0, 0);
	for (int i = 0; i < 300 && !atomic_load(&l.calls); i++)
		usleep(50000);
	ck_assert_int_ge(atomic_load(&l.calls), 1);
	shutdown(l.fd, SHUT_RDWR);
	close(fd);
	/* The library is still there for others. */
	fd = local("two");
	hint(fd, PRE_SEQUENTIAL, 0, 0);
	until("/disk/two", "SEQ/SEQ");
	hang_up(fd);
	pthread_join(t, NULL);
	close(l.fd);
}
END_TEST

/* ---- servers that are not ours --------------------------------------------------------------------------------------------------- */

/* Our own, behind somebody who changes what it says: its name, or what it thinks of IO_ADVISE. */
struct between {
	struct liar l; /* fd, calls: that IO_ADVISE was refused */
	bool rename;
};

static void change(struct between *b, uint8_t *buf, size_t n)
{
	static const uint8_t advised[8] = {0, 0, 0, 63, 0, 0, 0, 0}; /* IO_ADVISE, NFS4_OK */
	uint8_t *p = b->rename ? memmem(buf, n, "vhdnfs:", 7) : memmem(buf, n, advised, sizeof advised);

	if (!p)
		return;
	if (b->rename) {
		memcpy(p, "others:", 7);
	} else {
		raw_put32(p + 4, 10004); /* NOTSUPP */
		raw_put32(buf + 28, 10004);
	}
	atomic_fetch_add(&b->l.calls, 1);
}

static void pass_on(struct between *b, int client, int there)
{
	struct pollfd p[2] = {{.fd = client, .events = POLLIN}, {.fd = there, .events = POLLIN}};
	uint8_t buf[65536];
	ssize_t n;

	while (poll(p, 2, -1) > 0)
		for (int i = 0; i < 2; i++) {
			if (!p[i].revents)
				continue;
			if ((n = recv(p[i].fd, buf, sizeof buf, 0)) <= 0)
				return;
			if (i == 1)
				change(b, buf, (size_t)n);
			if (send(p[!i].fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
				return;
		}
}

static void *stand_between(void *arg)
{
	struct between *b = arg;
	int c;

	while ((c = accept(b->l.fd, NULL, NULL)) >= 0) {
		int there = raw_connect();

		pass_on(b, c, there);
		close(there);
		close(c);
	}
	return NULL;
}

/* Once, and never again: RFC 7862 §15.5 lets a server have no IO_ADVISE. */
START_TEST(other_peoples_servers_are_left_alone)
{
	struct between b = {.rename = _i};
	int one = local("one"), two = local("two");
	struct pre_id id;
	pthread_t t;

	ck_assert(pre_identify(one, &id));
	id.mount = listen_on(&b.l);
	ck_assert_int_eq(pthread_create(&t, NULL, stand_between, &b), 0);
	for (int i = 0; i < 3; i++) {
		pre_send_hint(one, NULL, &id, i % 2 ? PRE_RANDOM : PRE_SEQUENTIAL, 0, 0);
		hint(two, i % 2 ? PRE_RANDOM : PRE_SEQUENTIAL, 0, 0);
		until("/disk/two", i % 2 ? "RAN/RAN" : "SEQ/SEQ");
		ck_assert_int_eq(atomic_load(&b.l.calls), 1);
		ck_assert_int_eq(figure("operations", "IO_ADVISE", "count"), i + 1 + !b.rename);
	}
	ck_assert_int_eq(figure("clients", "sessions", NULL), 1);
	hang_up(two);
	close(one);
	shutdown(b.l.fd, SHUT_RDWR);
	pthread_join(t, NULL);
	close(b.l.fd);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("preload");
	TCase *tc = tcase_create("preload");
	SRunner *sr;
	int failed;

	(void)argc;
	server_find(argv[0]);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, hints_hold_until_the_last_descriptor_is_closed);
	tcase_add_test(tc, mappings_hold_a_file_open_too);
	tcase_add_test(tc, a_file_that_may_not_be_opened_gets_no_hint);
	tcase_add_test(tc, another_file_of_that_name_is_not_meant);
	tcase_add_test(tc, children_speak_for_themselves);
	tcase_add_test(tc, what_held_holds_again_after_a_restart);
	tcase_add_test(tc, a_flood_of_hints_is_survived);
	tcase_add_loop_test(tc, servers_that_lie_get_no_hints, 0, (int)(sizeof lies / sizeof lies[0]));
	tcase_add_loop_test(tc, other_peoples_servers_are_left_alone, 0, 2);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
