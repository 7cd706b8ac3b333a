/* SPDX-License-Identifier: BSD-3-Clause */
/* preload_mount.c - which files are on NFS, and where there; see preload.h */
#include "tools/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vhd/base/cleanup.h"

/* ---- on NFS or not --------------------------------------------------------------------------------------------------------------- */

/* What was found out about a mount: 1 (known), its id, the minor number of its device, 1 if it is NFSv4. Zero: nothing yet. */
#define KNOWN (1ull << 63)
#define VERDICTS 256u
static _Atomic uint64_t verdicts[VERDICTS];

static uint64_t verdict(const struct pre_id *id, bool nfs)
{
	return KNOWN | (uint64_t)id->mount << 22 | (uint64_t)(id->minor & 0xfffff) << 1 | nfs;
}

/* Byte by byte, since lines have any length and stacks here may be small. */
struct scan {
	uint32_t id;
	unsigned field; /* 0: the mount's id; then until the lone "-"; */
	unsigned len;   /* bytes of this field so far */
	bool dash;      /* the next field is the type */
	bool ours, nfs;
	char word[8];
};

static void scan_field(struct scan *s)
{
	s->word[s->len < sizeof s->word ? s->len : sizeof s->word - 1] = '\0';
	if (s->field == 0)
		s->ours = s->len < sizeof s->word ? (uint32_t)strtoul(s->word, NULL, 10) == s->id : false;
	else if (s->dash && s->ours)
		s->nfs = s->len == 4 && memcmp(s->word, "nfs4", 4) == 0;
	s->dash = !s->dash && s->field >= 6 && s->len == 1 && s->word[0] == '-';
	s->field++;
	s->len = 0;
}

static void scan_byte(struct scan *s, char c)
{
	if (c == ' ' || c == '\n')
		scan_field(s);
	else if (s->len++ < sizeof s->word)
		s->word[s->len - 1] = c;
	if (c == '\n') {
		s->field = 0;
		s->dash = s->ours = false;
	}
}

/* 1, 0, or negative: cannot be said now. */
static int is_nfs(uint32_t mount)
{
	struct scan s = {.id = mount};
	int fd = open("/proc/thread-self/mountinfo", O_RDONLY | O_CLOEXEC);
	char buf[1024];
	ssize_t n;

	if (fd < 0)
		return -1;
	while (!s.nfs && (n = read(fd, buf, sizeof buf)) > 0)
		for (ssize_t i = 0; i < n; i++)
			scan_byte(&s, buf[i]);
	close(fd);
	return s.nfs;
}

#define SMALL_BYTES (128u << 10) /* what the kernel's client reads at once when nobody says anything */

bool pre_identify(int fd, struct pre_id *id)
{
	_Atomic uint64_t *v;
	struct statx st;
	uint64_t is;
	int nfs;

	/* No times and no size, and not in step with the server: those would wait for it, and write back what is dirty. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO | STATX_MNT_ID, &st) < 0 ||
	    !(st.stx_mask & STATX_MNT_ID) || !S_ISREG(st.stx_mode) || st.stx_dev_major != 0)
		return false;
	*id = (struct pre_id){.ino = st.stx_ino, .minor = st.stx_dev_minor, .mount = (uint32_t)st.stx_mnt_id};
	/* Not asked for, but known since the open. */
	id->size = st.stx_mask & STATX_SIZE ? st.stx_size : 0;
	v = &verdicts[(id->mount ^ id->minor) % VERDICTS];
	is = atomic_load(v);
	if (is >> 1 == verdict(id, false) >> 1)
		return is & 1;
	if ((nfs = is_nfs(id->mount)) < 0)
		return false;
	atomic_store(v, verdict(id, nfs));
	return nfs;
}

uint32_t pre_worth_saying(int fd, const struct pre_id *id, uint32_t hints)
{
	int flags;

	if (!(hints & PRE_SEQUENTIAL) || !id->size || id->size > SMALL_BYTES)
		return hints;
	/* Whoever writes may make it large. */
	flags = fcntl(fd, F_GETFL);
	return flags >= 0 && (flags & O_ACCMODE) == O_RDONLY ? hints & ~(uint32_t)PRE_SEQUENTIAL : hints;
}

bool pre_path_of(int fd, char to[PATH_MAX])
{
	char link[32];
	ssize_t n;

	snprintf(link, sizeof link, "/proc/thread-self/fd/%d", fd);
	n = readlink(link, to, PATH_MAX - 1);
	if (n <= 0 || to[0] != '/')
		return false;
	to[n] = '\0';
	return true;
}

/* ---- where on the server --------------------------------------------------------------------------------------------------------- */

/* mountinfo writes blanks and the like as \040. In place. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
		    s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

static bool keep(char *to, size_t cap, const char *s)
{
	size_t len = strlen(s);

	if (!len || len >= cap)
		return false;
	memcpy(to, s, len + 1);
	return true;
}

/* addr=, port= of the options; anything but TCP is not for us. */
static bool take_options(char *options, struct pre_mount *m)
{
	char *save = NULL;

	for (char *o = strtok_r(options, ",", &save); o; o = strtok_r(NULL, ",", &save)) {
		if (strncmp(o, "addr=", 5) == 0 && !keep(m->host, sizeof m->host, o + 5))
			return false;
		if (strncmp(o, "port=", 5) == 0 && strcmp(o, "port=0") != 0 && !keep(m->port, sizeof m->port, o + 5))
			return false;
		if (strncmp(o, "proto=", 6) == 0 && strncmp(o + 6, "tcp", 3) != 0)
			return false;
	}
	return true;
}

/* HOST:/PATH or [V6]:/PATH; the host is only used where addr= is missing. */
static bool take_source(char *source, struct pre_mount *m)
{
	char *colon = strstr(source, ":/"), *host = source;

	if (!colon || !keep(m->export, sizeof m->export, colon + 1))
		return false;
	*colon = '\0';
	if (m->host[0])
		return true;
	if (*host == '[') {
		host++;
		host[strcspn(host, "]")] = '\0';
	}
	return keep(m->host, sizeof m->host, host);
}

bool pre_mount_parse(char *line, uint32_t id, struct pre_mount *m)
{
	enum { ID, PARENT, DEVICE, ROOT, POINT, OPTIONS, FIXED };
	char *field[FIXED], *type, *source, *options, *save = NULL, *word;

	memset(m, 0, sizeof *m);
	memcpy(m->port, "2049", 5);
	for (unsigned i = 0; i < FIXED; i++)
		if (!(field[i] = strtok_r(i ? NULL : line, " \n", &save)))
			return false;
	do
		word = strtok_r(NULL, " \n", &save);
	while (word && strcmp(word, "-") != 0);
	if (!word || !(type = strtok_r(NULL, " \n", &save)) || !(source = strtok_r(NULL, " \n", &save)) ||
	    !(options = strtok_r(NULL, " \n", &save)))
		return false;
	if (strtoul(field[ID], NULL, 10) != id || strcmp(type, "nfs4") != 0)
		return false;
	unescape(field[POINT]);
	unescape(source);
	return keep(m->point, sizeof m->point, field[POINT]) && take_options(options, m) && take_source(source, m);
}

bool pre_mount_find(uint32_t id, struct pre_mount *m)
{
	FILE *f = fopen("/proc/thread-self/mountinfo", "re");
	bool found = false;
	char *line = NULL;
	size_t cap = 0;

	if (!f)
		return false;
	while (!found && getline(&line, &cap, f) > 0)
		found = pre_mount_parse(line, id, m);
	free(line);
	fclose(f);
	return found;
}

bool pre_mount_path(const struct pre_mount *m, const char *path, char *to, size_t cap)
{
	size_t skip = strcmp(m->point, "/") == 0 ? 0 : strlen(m->point);
	const char *base = strcmp(m->export, "/") == 0 ? "" : m->export;
	int n;

	if (strncmp(path, m->point, skip) != 0 || path[skip] != '/')
		return false;
	n = snprintf(to, cap, "%s%s", base, path + skip);
	return n > 0 && (size_t)n < cap;
}
