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

static int dial_at(const char *path, FILE **out)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd, err;

	if (strlen(path) >= sizeof a.sun_path)
		return -ENAMETOOLONG;
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && (*out = fdopen(fd, "r+")))
		return 0;
	err = -errno;
	if (fd >= 0)
		close(fd);
	return err == -ECONNREFUSED ? -ENOENT : err;
}

/* Where a server may have it: started by root, by systemd, by this user. */
static int dial(const char *path, FILE **out, struct why *why)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	const char *const shared[] = {"/run/vhdnfsd.sock", "/run/vhdnfs/vhdnfsd.sock"};
	char own[120];
	int err;

	if (path) {
		err = dial_at(path, out);
		if (!err)
			return 0;
		return why_set(why, err, err == -ENOENT ? "%s: no server answers there" : "%s: %s", path,
			       strerror(-err));
	}
	snprintf(own, sizeof own, "%s/vhdnfsd.sock", dir ? dir : "");
	if (dir && dial_at(own, out) == 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(shared); i++) {
		err = dial_at(shared[i], out);
		if (err != -ENOENT)
			return err ? why_set(why, err, "%s: %s", shared[i], strerror(-err)) : 0;
	}
	return why_set(why, -ENOENT, "no server answers at %s, %s%s%s; --control PATH says where it is", shared[0],
		       shared[1], dir ? " or " : "", dir ? own : "");
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
