/* SPDX-License-Identifier: BSD-3-Clause */
/* server.c - see server.h */
#include "tests/protocol/server.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <libgen.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char bin[512], dir[64];
static const char *const *options;
static uint16_t port, port_v6;
static pid_t pid;

void server_find(const char *argv0)
{
	char copy[480];

	snprintf(copy, sizeof copy, "%s", argv0);
	snprintf(bin, sizeof bin, "%s/../..", dirname(copy));
}

static int run(const char *fmt, const char *a, const char *b)
{
	char cmd[1200];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(cmd, sizeof cmd, fmt, a, b);
#pragma GCC diagnostic pop
	return system(cmd);
}

static void launch(void)
{
	char image[96], listen[32], prog[600], line[512] = "";
	const char *argv[32], *v6;
	int fd[2], n = 0;
	FILE *f;

	snprintf(image, sizeof image, "%s/disk.vhd", dir);
	snprintf(listen, sizeof listen, "127.0.0.1:%u", port);
	snprintf(prog, sizeof prog, "%s/vhdnfsd", bin);
	argv[n++] = prog;
	argv[n++] = "--listen";
	argv[n++] = listen;
	/* After a restart clients that are gone for good are waited for: not for long. */
	argv[n++] = "--grace";
	argv[n++] = "3";
	argv[n++] = "--control";
	argv[n++] = "none";
	for (int i = 0; options && options[i]; i++)
		argv[n++] = options[i];
	argv[n++] = image;
	argv[n] = NULL;
	ck_assert_int_eq(pipe(fd), 0);
	pid = fork();
	if (pid == 0) {
		dup2(fd[1], STDERR_FILENO);
		close(fd[0]);
		execv(prog, (char **)(uintptr_t)argv);
		_exit(127);
	}
	close(fd[1]);
	f = fdopen(fd[0], "r");
	while (fgets(line, sizeof line, f) && !strstr(line, "ready on"))
		;
	ck_assert_msg(strstr(line, "ready on 127.0.0.1:") != NULL, "%s", line);
	port = (uint16_t)atoi(strstr(line, "127.0.0.1:") + 10);
	v6 = strstr(line, "[::1]:");
	port_v6 = v6 ? (uint16_t)atoi(v6 + 6) : 0;
	/* The pipe stays open: the server may have more to say. */
}

void server_start(const char *const *extra)
{
	snprintf(dir, sizeof dir, "%s/vhdnfs-proto-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(run("mkdir %s/f && echo hello >%s/f/hello", dir, dir), 0);
	ck_assert_int_eq(run("chmod 777 %s/f && chmod 644 %s/f/hello", dir, dir), 0);
	ck_assert_int_eq(run("%1$s/vhdnfs image create --size 64M --from %2$s/f %2$s/disk.vhd >/dev/null", bin, dir),
			 0);
	options = extra;
	port = 0;
	launch();
}

static void end(void)
{
	int status;

	kill(pid, SIGTERM);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the server ended with status %x",
		      (unsigned)status);
}

void server_stop(void)
{
	end();
	/* Files without a name that clients may come back for are on the list of orphans: e2fsck is to clear that, and nothing else. */
	ck_assert_int_eq(
		run("PATH=$PATH:/sbin:/usr/sbin; %1$s/vhdnfs image convert --to raw %2$s/disk.vhd %2$s/raw || exit 1; "
		    "! dumpe2fs -h %2$s/raw 2>/dev/null | grep -q '^First orphan' || e2fsck -p %2$s/raw >%2$s/log "
		    "2>&1; "
		    "e2fsck -fn %2$s/raw >%2$s/log 2>&1 || { cat %2$s/log; exit 1; }",
		    bin, dir),
		0);
	run("rm -rf %s%s", dir, "");
}

uint16_t server_port(void)
{
	return port;
}

const char *server_dir(void)
{
	return dir;
}

void server_options(const char *const *extra)
{
	options = extra;
}

void server_image_raw(void)
{
	end();
	ck_assert_int_eq(run("%1$s/vhdnfs image convert --to raw %2$s/disk.vhd %2$s/image.raw", bin, dir), 0);
	launch();
}

void server_restart(void)
{
	end();
	launch();
}

void server_reload(void)
{
	ck_assert_int_eq(kill(pid, SIGHUP), 0);
}

int server_tool(const char *fmt, const char *arg)
{
	return run(fmt, bin, arg);
}

void server_kill(void)
{
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

void server_again(void)
{
	launch();
}

long server_rss_kib(void)
{
	char path[64], line[256];
	long kib = -1;
	FILE *f;

	if (strstr(bin, "/asan/") || strstr(bin, "/tsan/"))
		return 0;
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof line, f))
		if (strncmp(line, "VmRSS:", 6) == 0)
			kib = atol(line + 6);
	fclose(f);
	return kib;
}

static struct nfsc *client_at(const char *host, uint16_t at)
{
	struct why why = {.line = ""};
	struct nfs_url u;
	struct nfsc *n = NULL;
	char text[64];

	snprintf(text, sizeof text, "nfs://%s:%u/", host, at);
	ck_assert_int_eq(nfs_url_parse(text, &u, &why), 0);
	ck_assert_msg(nfsc_open(&n, &u, &why) == 0, "%s", why.line);
	return n;
}

struct nfsc *server_client(void)
{
	return client_at("127.0.0.1", port);
}

void server_client_again(struct nfsc *n)
{
	struct why why = {.line = ""};
	struct nfs_url u;
	char text[64];

	snprintf(text, sizeof text, "nfs://127.0.0.1:%u/", port);
	ck_assert_int_eq(nfs_url_parse(text, &u, &why), 0);
	ck_assert_msg(nfsc_again(n, &u, &why) == 0, "%s", why.line);
}

struct nfsc *server_client_v6(void)
{
	ck_assert_uint_ne(port_v6, 0);
	return client_at("[::1]", port_v6);
}

/* ---- raw ------------------------------------------------------------------------------------------------------------------ */

void raw_put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, 4);
}

uint32_t raw_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return ntohl(v);
}

int raw_connect_from(uint32_t addr)
{
	struct sockaddr_in sa = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in mine = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(addr)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* calls are sent in two pieces */
	if (fd >= 0 && (bind(fd, (struct sockaddr *)&mine, sizeof mine) < 0 ||
			connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

int raw_connect(void)
{
	int fd = raw_connect_from(INADDR_LOOPBACK);

	ck_assert_int_ge(fd, 0);
	return fd;
}

void raw_send(int fd, const void *p, size_t n)
{
	const char *q = p;

	while (n) {
		ssize_t k = send(fd, q, n, MSG_NOSIGNAL);

		if (k <= 0)
			return; /* the server had enough: the test looks at what it says */
		q += k;
		n -= (size_t)k;
	}
}

void raw_call(int fd, uint32_t xid, uint32_t proc, const void *args, size_t n)
{
	uint8_t h[44];
	const uint32_t words[] = {(uint32_t)(40 + n) | 0x80000000u, xid, 0, 2, 100003, 4, proc, 0, 0, 0, 0};

	for (unsigned i = 0; i < 11; i++)
		raw_put32(h + 4 * i, words[i]);
	raw_send(fd, h, sizeof h);
	raw_send(fd, args, n);
}

static int read_all(int fd, uint8_t *p, size_t n, int ms)
{
	while (n) {
		struct pollfd pf = {.fd = fd, .events = POLLIN};
		ssize_t k;

		if (poll(&pf, 1, ms) <= 0)
			return -1;
		k = recv(fd, p, n, 0);
		if (k <= 0)
			return 0;
		p += k;
		n -= (size_t)k;
	}
	return 1;
}

int raw_reply(int fd, uint8_t *buf, size_t cap, int ms)
{
	uint8_t mark[4];
	uint32_t len;
	int rc = read_all(fd, mark, 4, ms);

	if (rc <= 0)
		return rc;
	len = raw_get32(mark) & 0x7fffffff;
	ck_assert_uint_le(len, cap);
	rc = read_all(fd, buf, len, ms);
	return rc <= 0 ? rc : (int)len;
}
