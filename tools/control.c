/* SPDX-License-Identifier: BSD-3-Clause */
/* control.c - see control.h */
#include "tools/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"

/* As the server chooses. */
static int socket_path(const char *path, struct sockaddr_un *a, struct why *why)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	int n;

	a->sun_family = AF_UNIX;
	if (path || geteuid() == 0)
		n = snprintf(a->sun_path, sizeof a->sun_path, "%s", path ? path : "/run/vhdnfsd.sock");
	else if (dir)
		n = snprintf(a->sun_path, sizeof a->sun_path, "%s/vhdnfsd.sock", dir);
	else
		return why_set(why, -ENOENT, "no server: $XDG_RUNTIME_DIR is not set, and no --control PATH given");
	return n < (int)sizeof a->sun_path ? 0 : why_set(why, -ENAMETOOLONG, "%s: too long for a socket", path);
}

static int dial(const char *path, FILE **out, struct why *why)
{
	struct sockaddr_un a = {0};
	int fd, err = socket_path(path, &a, why);

	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && (*out = fdopen(fd, "r+")))
		return 0;
	err = -errno;
	if (fd >= 0)
		close(fd);
	if (err == -ECONNREFUSED)
		err = -ENOENT;
	return why_set(why, err, err == -ENOENT ? "%s: no server answers there" : "%s: %s", a.sun_path, strerror(-err));
}

int control_ask(const char *path, json_t *ask, json_t **out, struct why *why)
{
	AUTO(freep) char *text = json_dumps(ask, JSON_COMPACT), *line = NULL;
	json_t *answer = NULL;
	FILE *f = NULL;
	size_t cap = 0;
	int err;

	if (!text)
		return -ENOMEM;
	if ((err = dial(path, &f, why)) < 0)
		return err;
	if (fprintf(f, "%s\n", text) < 0 || fflush(f) < 0 || getline(&line, &cap, f) <= 0)
		err = why_set(why, -EIO, "the server ended the conversation");
	fclose(f);
	if (!err && !(answer = json_loads(line, 0, NULL)))
		err = why_set(why, -EIO, "the server's answer is not JSON");
	if (!err && !json_is_true(json_object_get(answer, "ok"))) {
		const char *said = json_string_value(json_object_get(answer, "error"));

		err = -(int)json_integer_value(json_object_get(answer, "errno"));
		err = why_set(why, err < 0 ? err : -EIO, "%s", said ? said : "the server refused");
	}
	if (err)
		json_decref(answer);
	else
		*out = answer;
	return err;
}
