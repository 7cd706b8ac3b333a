/* SPDX-License-Identifier: BSD-3-Clause */
/* config.c - see config.h: single values, wherever they come from */
#include "server/config_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/base/size.h"

int config_grow(void *array, unsigned *n, size_t size)
{
	void *p = realloc(*(void **)array, (*n + 1) * size);

	if (!p)
		return -ENOMEM;
	memset((char *)p + *n * size, 0, size);
	*(void **)array = p;
	(*n)++;
	return 0;
}

int config_new_image(struct config *c, const char *path, const char *name, struct config_image **out, struct why *why)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	struct config_image *im;
	size_t len;

	len = strlen(base);
	if (!name && len > 4 && strcasecmp(base + len - 4, ".vhd") == 0)
		len -= 4;
	if (name) {
		base = name[0] == '/' ? name + 1 : name;
		len = strlen(base);
	}
	if (len == 0 || len > 255 || memchr(base, '/', len) || (len == 1 && base[0] == '.') ||
	    (len == 2 && base[0] == '.' && base[1] == '.'))
		return why_set(why, -EINVAL, "%s: export name \"%s\": expected one path component", path, base);
	for (unsigned i = 0; i < c->nimage; i++)
		if (strlen(c->image[i].name) == len && memcmp(c->image[i].name, base, len) == 0)
			return why_set(why, -EEXIST, "%s: export name \"%s\" is taken by %s; give another with %s=NAME",
				       path, c->image[i].name, c->image[i].path, path);
	if (config_grow(&c->image, &c->nimage, sizeof *c->image) < 0)
		return -ENOMEM;
	im = &c->image[c->nimage - 1];
	im->path = strdup(path);
	im->name = strndup(base, len);
	im->opts = (struct export_opts){.anon_uid = 65534, .anon_gid = 65534};
	if (!im->path || !im->name)
		return -ENOMEM;
	if (out)
		*out = im;
	return 0;
}

/* Where they stand in a struct config, and what they may be. */
static const struct {
	const char *name;
	size_t at;
	unsigned min, max;
} numbers[] = {
	[CONFIG_THREADS] = {"threads", offsetof(struct config, loops), 1, 256},
	[CONFIG_WORKERS] = {"workers", offsetof(struct config, workers), 1, 1024},
	[CONFIG_BUSY_POLL] = {"busy-poll", offsetof(struct config, busy_poll_us), 0, 1000},
	[CONFIG_MAX_CONNECTIONS] = {"max-connections", offsetof(struct config, max_connections), 1, 65536},
	[CONFIG_LEASE] = {"lease-seconds", offsetof(struct config, lease_seconds), 1, 3600},
	[CONFIG_GRACE] = {"grace-seconds", offsetof(struct config, grace_seconds), 1, 3600},
};

int config_set_number(struct config *c, enum config_number which, uint64_t value, struct why *why)
{
	if (value < numbers[which].min || value > numbers[which].max)
		return why_set(why, -EINVAL, "expected a number from %u to %u", numbers[which].min, numbers[which].max);
	*(unsigned *)((char *)c + numbers[which].at) = (unsigned)value;
	return 0;
}

/* ---- the command line ------------------------------------------------------------------------------------------------ */

void config_init(struct config *c)
{
	*c = (struct config){
		.cache_size = UINT64_C(256) << 20,
		.squash = SQUASH_ROOT,
		.log_level = LOG_LVL_INFO,
		.lease_seconds = 90,
		.busy_poll_us = 30,
		.max_connections = CONFIG_CONNECTIONS,
	};
}

void config_fini(struct config *c)
{
	for (unsigned i = 0; i < c->nlisten; i++)
		free(c->listen[i]);
	for (unsigned i = 0; i < c->nimage; i++) {
		free(c->image[i].path);
		free(c->image[i].name);
		free(c->image[i].allow);
		free(c->image[i].said_at);
	}
	free(c->listen);
	for (unsigned i = 0; i < c->nparent_dir; i++)
		free(c->parent_dir[i]);
	free(c->parent_dir);
	for (unsigned i = 0; i < c->nrule; i++)
		free(c->rule[i].match);
	free(c->rule);
	free(c->allow);
	free(c->image);
	free(c->state_dir);
	free(c->control);
	free(c->metrics);
	*c = (struct config){0};
}

/* Splits ADDR[:PORT] and [V6][:PORT]; a bare IPv6 address (two colons or more) has no port. */
static int split_address(const char *text, char *host, size_t cap, const char **port)
{
	const char *end = text[0] == '[' ? strchr(text, ']') : NULL;
	const char *colon = strrchr(text, ':');
	const char *from = text;
	size_t n;

	*port = NULL;
	if (text[0] == '[') {
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		from = text + 1;
		n = (size_t)(end - from);
		*port = end[1] ? end + 2 : NULL;
	} else if (colon && strchr(text, ':') == colon) {
		n = (size_t)(colon - text);
		*port = colon + 1;
	} else {
		n = strlen(text);
	}
	if (n == 0 || n >= cap)
		return -EINVAL;
	memcpy(host, from, n);
	host[n] = '\0';
	return 0;
}

int config_add_listen(struct config *c, const char *text, struct why *why)
{
	char host[INET6_ADDRSTRLEN], norm[INET6_ADDRSTRLEN + 16];
	uint64_t port = CONFIG_PORT;
	struct in6_addr a6;
	struct in_addr a4;
	const char *p;
	bool v6;

	if (split_address(text, host, sizeof host, &p) < 0)
		goto bad;
	if (p && !number_parse(p, 0, 65535, &port))
		goto bad;
	v6 = inet_pton(AF_INET6, host, &a6) == 1;
	if (!v6 && inet_pton(AF_INET, host, &a4) != 1)
		goto bad;
	snprintf(norm, sizeof norm, v6 ? "[%s]:%u" : "%s:%u", host, (unsigned)port);
	if (config_grow(&c->listen, &c->nlisten, sizeof *c->listen) < 0)
		return -ENOMEM;
	c->listen[c->nlisten - 1] = strdup(norm);
	return c->listen[c->nlisten - 1] ? 0 : -ENOMEM;
bad:
	return why_set(why, -EINVAL, "listen \"%.200s\": expected ADDRESS[:PORT], such as 127.0.0.1:2049 or [::1]:2049",
		       text);
}

int config_add_parent_dir(struct config *c, const char *dir, struct why *why)
{
	struct stat st;
	char **p;

	if (stat(dir, &st) < 0)
		return why_set(why, -errno, "parent folder %s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return why_set(why, -ENOTDIR, "parent folder %s: not a directory", dir);
	/* One more for the NULL at the end. */
	p = realloc(c->parent_dir, (c->nparent_dir + 2) * sizeof *p);
	if (!p)
		return -ENOMEM;
	c->parent_dir = p;
	p[c->nparent_dir + 1] = NULL;
	p[c->nparent_dir] = strdup(dir);
	return p[c->nparent_dir++] ? 0 : -ENOMEM;
}

int config_add_allow(struct config *c, const char *text, struct why *why)
{
	struct cidr net;
	int err;

	if ((err = cidr_parse(text, &net, why)) < 0)
		return err;
	if ((err = config_grow(&c->allow, &c->nallow, sizeof *c->allow)) < 0)
		return err;
	c->allow[c->nallow - 1] = net;
	return 0;
}

int config_add_image(struct config *c, const char *text, struct why *why)
{
	const char *eq = strrchr(text, '=');
	AUTO(freep) char *path = NULL;

	/* An existing file of that very name wins over IMAGE=NAME. */
	if (!eq || access(text, F_OK) == 0)
		return config_new_image(c, text, NULL, NULL, why);
	path = strndup(text, (size_t)(eq - text));
	if (!path)
		return -ENOMEM;
	return config_new_image(c, path, eq + 1, NULL, why);
}

int config_set_state_dir(struct config *c, const char *dir, struct why *why)
{
	struct stat st;

	if (stat(dir, &st) < 0)
		return why_set(why, -errno, "state-dir %s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return why_set(why, -ENOTDIR, "state-dir %s: not a directory", dir);
	free(c->state_dir);
	c->state_dir = strdup(dir);
	return c->state_dir ? 0 : -ENOMEM;
}

int config_bool(const char *text, bool *out, struct why *why)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {{"yes", true}, {"no", false}, {"true", true}, {"false", false}, {"on", true}, {"off", false}};

	for (unsigned i = 0; i < ARRAY_LEN(words); i++)
		if (strcasecmp(words[i].word, text) == 0) {
			*out = words[i].value;
			return 0;
		}
	return why_set(why, -EINVAL, "\"%.100s\": expected yes, no, true, false, on or off", text);
}

int config_set_cache_size(struct config *c, const char *text, struct why *why)
{
	uint64_t v;

	if (size_parse(text, &v) < 0)
		return why_set(why, -EINVAL, "cache-size \"%.100s\": expected a size such as 256M or 4GiB", text);
	if (v < CACHE_MIN_LIMIT || v > UINT64_C(1) << 46)
		return why_set(why, -EINVAL, "cache-size \"%.100s\": expected at least 4M", text);
	c->cache_size = v;
	return 0;
}

int config_finish(struct config *c, struct why *why)
{
	if (!c->nimage && !c->from_file)
		return why_set(why, -EINVAL, "no image to serve; see vhdnfsd --help");
	for (unsigned i = 0; i < c->nimage; i++) {
		if (!c->image[i].squash_given)
			c->image[i].opts.squash = c->squash;
		c->image[i].opts.read_only |= c->read_only;
	}
	if (!c->nlisten)
		return config_add_listen(c, "127.0.0.1", why);
	return 0;
}
