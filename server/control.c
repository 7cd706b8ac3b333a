/* SPDX-License-Identifier: BSD-3-Clause */
/* control.c - see control.h */
#include "server/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/control_ops.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/json.h"
#include "vhd/base/log.h"

enum { LINE_MAX_BYTES = 65536, IDLE_MS = 10000, WRITE_MS = 5000 };

struct control {
	struct control_server s;
	char *path;
	int fd, stop; /* the socket; an eventfd */
	pthread_t thread;
	bool started;
};

/* ---- answers -------------------------------------------------------------------------------------------------------------------- */

static json_t *failure(int err, const char *line)
{
	return json_pack("{s:b, s:i, s:o}", "ok", 0, "errno", -err, "error", json_text(line));
}

static json_t *answer(const struct control *c, const char *line)
{
	struct why why = {.line = ""};
	json_error_t bad;
	json_t *ask = json_loads(line, JSON_REJECT_DUPLICATES, &bad), *out = NULL;
	const char *what = json_string_value(json_object_get(ask, "do"));
	const struct control_op *op = what ? control_op_find(what) : NULL;
	int err;

	if (!ask)
		err = why_set(&why, -EINVAL, "not JSON: %s", bad.text);
	else if (!op)
		err = why_set(&why, -EINVAL, "\"do\": \"%.50s\": no such request", what ? what : "");
	else
		err = op->run(&c->s, ask, &out, &why);
	json_decref(ask);
	if (err) {
		json_decref(out);
		return failure(err, why.line[0] ? why.line : strerror(-err));
	}
	if (!out)
		out = json_object();
	json_object_set_new(out, "ok", json_true());
	return out;
}

/* ---- connections --------------------------------------------------------------------------------------------------------------- */

/* Something to read, or room to write, before the time is over and nobody wants us to stop. */
static bool ready(const struct control *c, int fd, short events, int ms)
{
	struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = c->stop, .events = POLLIN}};

	return poll(p, 2, ms) > 0 && !p[1].revents;
}

static bool send_all(const struct control *c, int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k;

		if (!ready(c, fd, POLLOUT, WRITE_MS))
			return false;
		k = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (k < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		p += k > 0 ? k : 0;
		n -= k > 0 ? (size_t)k : 0;
	}
	return true;
}

static bool reply(const struct control *c, int fd, const char *line)
{
	json_t *j = answer(c, line);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	bool ok = text && send_all(c, fd, text, strlen(text)) && send_all(c, fd, "\n", 1);

	free(text);
	json_decref(j);
	return ok;
}

/* Only root and we: the mode of the socket says so too, but a folder may be moved. */
static bool may_ask(int fd)
{
	struct ucred u;
	socklen_t n = sizeof u;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) == 0 && (u.uid == 0 || u.uid == geteuid());
}

static void serve_one(const struct control *c, int fd, char *buf)
{
	size_t used = 0;

	while (may_ask(fd) && used < LINE_MAX_BYTES && ready(c, fd, POLLIN, IDLE_MS)) {
		ssize_t n = recv(fd, buf + used, LINE_MAX_BYTES - used, MSG_DONTWAIT);
		char *end;

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return;
		used += n > 0 ? (size_t)n : 0;
		while ((end = memchr(buf, '\n', used))) {
			size_t len = (size_t)(end - buf) + 1;

			*end = '\0';
			if (!reply(c, fd, buf))
				return;
			memmove(buf, buf + len, used - len);
			used -= len;
		}
	}
}

static void *run(void *arg)
{
	struct control *c = arg;
	AUTO(freep) char *buf = malloc(LINE_MAX_BYTES + 1);

	while (buf && ready(c, c->fd, POLLIN, -1)) {
		int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			continue;
		serve_one(c, fd, buf);
		close(fd);
	}
	return NULL;
}

/* ---- the socket ------------------------------------------------------------------------------------------------------------------ */

const char *control_default(void)
{
	static char path[108];
	const char *dir = getenv("RUNTIME_DIRECTORY"); /* of a systemd unit */

	if (!dir && geteuid() == 0)
		return "/run/vhdnfsd.sock";
	if (!dir)
		dir = getenv("XDG_RUNTIME_DIR");
	if (!dir || snprintf(path, sizeof path, "%s/vhdnfsd.sock", dir) >= (int)sizeof path)
		return NULL;
	return path;
}

static int listen_at(struct control *c, const char *path, struct why *why)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct stat st;
	mode_t mask;
	int err = 0;

	if (strlen(path) >= sizeof a.sun_path)
		return why_set(why, -ENAMETOOLONG, "%s: longer than a socket's path may be (%zu)", path,
			       sizeof a.sun_path - 1);
	strcpy(a.sun_path, path);
	if (connect(c->fd, (struct sockaddr *)&a, sizeof a) == 0)
		return why_set(why, -EADDRINUSE, "%s: another server answers there", path);
	/* A file refuses as the socket of a server that is gone does. */
	if (errno == ECONNREFUSED && stat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return why_set(why, -EADDRINUSE, "%s: there is something else than a socket", path);
		unlink(path);
	}
	close(c->fd);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mask = umask(0177);
	if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(c->fd, 8) < 0)
		err = why_set(why, -errno, "%s: %s", path, strerror(errno));
	umask(mask);
	return err;
}

int control_start(struct control **out, const char *path, const struct control_server *s, struct why *why)
{
	struct control *c = calloc(1, sizeof *c);
	int err = 0;

	if (!c)
		return -ENOMEM;
	c->s = *s;
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	c->stop = eventfd(0, EFD_CLOEXEC);
	if (c->fd < 0 || c->stop < 0)
		err = -errno;
	if (!err)
		err = listen_at(c, path, why);
	if (!err && !(c->path = strdup(path)))
		err = -ENOMEM;
	if (!err)
		err = -pthread_create(&c->thread, NULL, run, c);
	c->started = !err;
	if (err) {
		control_stop(c);
		return err;
	}
	*out = c;
	return 0;
}

void control_stop(struct control *c)
{
	uint64_t one = 1;

	if (!c)
		return;
	if (c->started) {
		if (write(c->stop, &one, sizeof one) != sizeof one)
			log_warn("the control socket cannot be closed: %s", strerror(errno));
		pthread_join(c->thread, NULL);
	}
	if (c->path)
		unlink(c->path);
	if (c->fd >= 0)
		close(c->fd);
	if (c->stop >= 0)
		close(c->stop);
	free(c->path);
	free(c);
}
