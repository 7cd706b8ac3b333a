/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c - vhdnfs image create, info, convert */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"
#include "vhd/image/vhd.h"
#include "vhd/io/hio.h"
#include "vhd/volume/volume.h"

#define PIECE (1u << 20)

static int complain(const struct why *why, int err)
{
	fprintf(stderr, "vhdnfs: %s\n", why->line[0] ? why->line : strerror(-err));
	return TOOL_FAILED;
}

static int usage(FILE *f, const char *text)
{
	fprintf(f, "usage: vhdnfs image %s\n", text);
	return f == stdout ? TOOL_OK : TOOL_USAGE;
}

static const struct option options[] = {
	{"fixed", no_argument, NULL, 'f'},
	{"size", required_argument, NULL, 's'},
	{"fs", required_argument, NULL, 't'},
	{"from", required_argument, NULL, 'd'},
	{"exact", no_argument, NULL, 'e'},
	{"json", no_argument, NULL, 'j'},
	{"to", required_argument, NULL, 'o'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* ---- copying -------------------------------------------------------------------------------------------------------------------- */

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static void progress(uint64_t done, uint64_t total)
{
	static int last = -1;
	int now = total ? (int)(done * 100 / total) : 100;

	if (!isatty(STDERR_FILENO) || now == last)
		return;
	last = now;
	fprintf(stderr, "\r%3d %%%s", now, done == total ? "\n" : "");
}

/* Where the next data of a source is: an image, or a raw file. */
struct source {
	struct vhd *vhd;
	struct hio *raw;
	uint64_t size;
};

static int next_data(const struct source *s, uint64_t off, uint64_t *data, uint64_t *end)
{
	if (s->raw)
		return hio_next_data(s->raw, off, data, end);
	for (*data = off; *data < s->size;) {
		struct vhd_run run;
		int err = vhd_map(s->vhd, *data, s->size - *data, &run);

		if (err)
			return err;
		*end = *data + run.len;
		if (!run.hole)
			return 0;
		*data = *end;
	}
	*data = *end = s->size;
	return 0;
}

static int read_source(const struct source *s, void *buf, uint64_t len, uint64_t off)
{
	return s->raw ? hio_read(s->raw, buf, len, off) : vhd_read(s->vhd, buf, len, off);
}

/* Data goes over, holes and zeros stay holes. Exactly one of @vhd and @raw is the target. */
static int copy(const struct source *s, struct vhd *vhd, struct hio *raw)
{
	AUTO(freep) uint8_t *buf = hio_alloc(PIECE);
	uint64_t at = 0;
	int err = 0;

	if (!buf)
		return -ENOMEM;
	while (!err && at < s->size) {
		uint64_t data, end;

		if ((err = next_data(s, at, &data, &end)) < 0)
			break;
		data = round_down_u64(data, 512);
		end = min_u64(round_up_u64(end, 512), s->size);
		for (at = data; !err && at < end; progress(at, s->size)) {
			uint64_t n = min_u64(end - at, PIECE - at % PIECE);

			err = read_source(s, buf, n, at);
			if (!err && !all_zero(buf, n))
				err = raw ? hio_write(raw, buf, n, at) : vhd_write(vhd, buf, n, at);
			at += n;
		}
		at = max_u64(at, end);
	}
	progress(s->size, s->size);
	return err;
}

/* ---- create ---------------------------------------------------------------------------------------------------------------------- */

static int run_program(char *const argv[], struct why *why)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		setenv("PATH", "/sbin:/usr/sbin:/bin:/usr/bin", 1);
		execvp(argv[0], argv);
		fprintf(stderr, "vhdnfs: %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return why_set(why, -EIO, "%s failed%s", argv[0],
		       WIFEXITED(status) && WEXITSTATUS(status) == 127 ? ": install e2fsprogs" : "");
}

/* A raw file with an ext4 of @size bytes in it, filled from @from when that is given. */
static int make_fs(const char *raw, uint64_t size, const char *from, struct why *why)
{
	char *argv[16];
	int n = 0, fd = open(raw, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
		int err = -errno;

		if (fd >= 0)
			close(fd);
		return why_set(why, err, "%s: %s", raw, strerror(-err));
	}
	close(fd);
	argv[n++] = (char *)(uintptr_t) "mke2fs";
	argv[n++] = (char *)(uintptr_t) "-q";
	argv[n++] = (char *)(uintptr_t) "-F";
	argv[n++] = (char *)(uintptr_t) "-t";
	argv[n++] = (char *)(uintptr_t) "ext4";
	if (from) {
		argv[n++] = (char *)(uintptr_t) "-d";
		argv[n++] = (char *)(uintptr_t)from;
	}
	argv[n++] = (char *)(uintptr_t)raw;
	argv[n] = NULL;
	return run_program(argv, why);
}

/* Enough for what `du` says, and room to work in. */
static int size_for(const char *dir, uint64_t *size, struct why *why)
{
	char cmd[32];
	char *argv[] = {(char *)(uintptr_t) "du", (char *)(uintptr_t) "-sB1", (char *)(uintptr_t) "--apparent-size",
			(char *)(uintptr_t) "--", (char *)(uintptr_t)dir,     NULL};
	int fd[2];
	ssize_t n;
	pid_t pid;
	unsigned long long bytes;

	if (pipe2(fd, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		dup2(fd[1], STDOUT_FILENO);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(fd[1]);
	n = read(fd[0], cmd, sizeof cmd - 1);
	close(fd[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	if (n <= 0)
		return why_set(why, -EINVAL, "%s: its size could not be found", dir);
	cmd[n] = '\0';
	bytes = strtoull(cmd, NULL, 10);
	*size = max_u64(64u << 20, round_up_u64(bytes + bytes / 2 + (32u << 20), 1u << 20));
	return 0;
}

struct create {
	struct vhd_create_opts o;
	const char *fs, *from;
};

static int fill(const char *path, const char *raw, struct why *why)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	struct source s = {.vhd = NULL};
	struct vhd *v = NULL;
	int err, e2;

	if ((err = vhd_open(&v, path, &oo, why)) < 0)
		return err;
	err = hio_open(&s.raw, raw, HIO_CACHED, why);
	if (!err) {
		int64_t n = hio_size(s.raw);

		s.size = n < 0 ? 0 : (uint64_t)n;
		err = copy(&s, v, NULL);
	}
	hio_close(s.raw);
	e2 = vhd_close(v);
	return err ? err : e2;
}

static int create(const char *path, const struct create *c, struct why *why)
{
	AUTO(freep) char *tmp = NULL, *raw = NULL;
	uint64_t size;
	int err;

	if (access(path, F_OK) == 0)
		return why_set(why, -EEXIST, "%s: exists already; it is not replaced", path);
	if (!c->fs)
		return vhd_create(path, &c->o, why);
	if (asprintf(&tmp, "%s.tmp-%d", path, (int)getpid()) < 0 ||
	    asprintf(&raw, "%s.raw-%d", path, (int)getpid()) < 0)
		return -ENOMEM;
	size = c->o.exact ? round_up_u64(c->o.size, 512) : vhd_round_size(c->o.size);
	err = make_fs(raw, size, c->from, why);
	if (!err && !(err = vhd_create(tmp, &c->o, why)))
		err = fill(tmp, raw, why);
	if (!err && rename(tmp, path) < 0)
		err = why_set(why, -errno, "%s: %s", path, strerror(errno));
	unlink(raw);
	if (err)
		unlink(tmp);
	return err;
}

static int image_create(int argc, char **argv)
{
	static const char help[] =
		"create [--fixed] [--size SIZE] [--fs ext4] [--from DIR] [--exact] FILE\n\n"
		"  --fixed     all space at once; by default the image grows (dynamic)\n"
		"  --size SIZE 10G, 512M, …; with --from it may be left out\n"
		"  --fs ext4   make a file system in it\n"
		"  --from DIR  fill it with the files of a folder (makes an ext4)\n"
		"  --exact     keep the size; by default it is rounded up so that all programs agree on it";
	struct create c = {.o = {.type = VHD_DYNAMIC}};
	struct why why = {.line = ""};
	char text[SIZE_TEXT];
	int opt, err = 0;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1)
		switch (opt) {
		case 'f':
			c.o.type = VHD_FIXED;
			break;
		case 's':
			if (size_parse(optarg, &c.o.size) < 0 || !c.o.size) {
				fprintf(stderr, "vhdnfs: --size \"%s\": expected a size such as 10G\n", optarg);
				return TOOL_USAGE;
			}
			break;
		case 't':
			if (strcmp(optarg, "ext4") != 0) {
				fprintf(stderr, "vhdnfs: --fs \"%s\": expected ext4\n", optarg);
				return TOOL_USAGE;
			}
			c.fs = optarg;
			break;
		case 'd':
			c.from = optarg;
			break;
		case 'e':
			c.o.exact = true;
			break;
		default:
			return usage(opt == 'h' ? stdout : stderr, help);
		}
	if (argc - optind != 1 || (!c.o.size && !c.from))
		return usage(stderr, help);
	if (c.from && !c.fs)
		c.fs = "ext4";
	if (!c.o.size)
		err = size_for(c.from, &c.o.size, &why);
	if (!err)
		err = create(argv[optind], &c, &why);
	if (err)
		return complain(&why, err);
	printf("%s: %s VHD, %s%s%s\n", argv[optind], c.o.type == VHD_FIXED ? "fixed" : "dynamic",
	       size_text(c.o.exact ? c.o.size : vhd_round_size(c.o.size), text), c.fs ? ", " : "", c.fs ? c.fs : "");
	return TOOL_OK;
}

/* ---- info ------------------------------------------------------------------------------------------------------------------------- */

static const char *type_name(enum vhd_type t)
{
	return t == VHD_FIXED ? "fixed" : t == VHD_DYNAMIC ? "dynamic" : "differencing";
}

static json_t *info_json(const char *path, const struct vhd_info *i, const struct vol_list *l)
{
	char uuid[37], part[37];
	json_t *j = json_object(), *vols = json_array();

	uuid_unparse_lower(i->uuid, uuid);
	json_object_set_new(j, "file", json_string(path));
	json_object_set_new(j, "type", json_string(type_name(i->type)));
	json_object_set_new(j, "size", json_integer((json_int_t)i->size));
	json_object_set_new(j, "size-current", json_integer((json_int_t)i->size_current));
	json_object_set_new(j, "size-chs", json_integer((json_int_t)i->size_chs));
	json_object_set_new(j, "geometry", json_pack("[i,i,i]", i->cylinders, i->heads, i->sectors));
	json_object_set_new(j, "block-size", json_integer(i->block_size));
	json_object_set_new(j, "blocks", json_integer(i->blocks));
	json_object_set_new(j, "blocks-allocated", json_integer(i->blocks_allocated));
	json_object_set_new(j, "file-size", json_integer((json_int_t)i->file_size));
	json_object_set_new(j, "creator", json_string(i->creator));
	json_object_set_new(j, "creator-os", json_string(i->creator_os));
	json_object_set_new(j, "created", json_integer(i->created));
	json_object_set_new(j, "uuid", json_string(uuid));
	json_object_set_new(j, "footer-ok", json_boolean(i->tail_ok));
	json_object_set_new(j, "footer-copy-ok", json_boolean(i->type == VHD_FIXED || i->head_ok));
	json_object_set_new(j, "saved-state", json_boolean(i->saved_state));
	for (unsigned n = 0; n < l->n; n++) {
		const struct vol_part *p = &l->part[n];

		uuid_unparse_lower(p->uuid, part);
		json_array_append_new(vols, json_pack("{s:i,s:I,s:I,s:s,s:s,s:s}", "partition", (int)p->number, "start",
						      (json_int_t)p->start, "size", (json_int_t)p->len, "fs", p->fstype,
						      "label", p->label, "uuid", part));
	}
	json_object_set_new(j, "volumes", vols);
	return j;
}

static void info_text(const char *path, const struct vhd_info *i, const struct vol_list *l)
{
	char a[SIZE_TEXT], b[SIZE_TEXT], uuid[37], when[40];
	time_t t = (time_t)i->created;
	struct tm tm;

	uuid_unparse_lower(i->uuid, uuid);
	strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&t, &tm));
	printf("%s: %s VHD\n", path, type_name(i->type));
	printf("  size       %s (%llu bytes, by %s)\n", size_text(i->size, a), (unsigned long long)i->size,
	       i->size_from == VHD_SIZE_CHS ? "geometry" : "current size");
	printf("  geometry   %u/%u/%u (%s)\n", i->cylinders, i->heads, i->sectors, size_text(i->size_chs, a));
	printf("  file       %s\n", size_text(i->file_size, a));
	if (i->type != VHD_FIXED)
		printf("  blocks     %u of %u in use, %s each (%s)\n", i->blocks_allocated, i->blocks,
		       size_text(i->block_size, a), size_text((uint64_t)i->blocks_allocated * i->block_size, b));
	printf("  creator    \"%s\" %u.%u on \"%s\", %s\n", i->creator, i->creator_version >> 16,
	       i->creator_version & 0xffff, i->creator_os, when);
	printf("  uuid       %s\n", uuid);
	if (!i->tail_ok || (i->type != VHD_FIXED && !i->head_ok))
		printf("  damaged    the footer %s\n", i->tail_ok ? "copy at the start" : "at the end");
	if (i->saved_state)
		printf("  saved state of a virtual machine belongs to it\n");
	for (unsigned n = 0; n < l->n; n++) {
		const struct vol_part *p = &l->part[n];

		if (p->number)
			printf("  partition %u: ", p->number);
		else
			printf("  inside     ");
		printf("%s%s%s%s, %s\n", p->fstype[0] ? p->fstype : "nothing known", p->label[0] ? " \"" : "", p->label,
		       p->label[0] ? "\"" : "", size_text(p->len, a));
	}
	if (!l->n)
		printf("  inside     nothing known\n");
}

static int image_info(int argc, char **argv)
{
	static const char help[] = "info [--json] FILE…";
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_NOLOCK | VHD_OPEN_CACHED};
	AUTO(freep) struct vol_list *l = malloc(sizeof *l);
	bool json = false;
	int opt, rc = TOOL_OK;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt != 'j')
			return usage(opt == 'h' ? stdout : stderr, help);
		json = true;
	}
	if (optind == argc || !l)
		return usage(stderr, help);
	for (; optind < argc; optind++) {
		struct why why = {.line = ""};
		struct vhd_info i;
		struct vhd *v = NULL;
		int err = vhd_open(&v, argv[optind], &oo, &why);

		if (!err)
			err = vol_scan(v, l, &why);
		if (err) {
			rc = complain(&why, err);
		} else if (vhd_info(v, &i), json) {
			json_t *j = info_json(argv[optind], &i, l);

			json_dumpf(j, stdout, JSON_INDENT(2));
			putchar('\n');
			json_decref(j);
		} else {
			info_text(argv[optind], &i, l);
		}
		vhd_close(v);
	}
	return rc;
}

/* ---- convert ---------------------------------------------------------------------------------------------------------------------- */

/* An image if it is one, else a raw disk. */
static int open_source(const char *path, struct source *s, struct why *why)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_CACHED};
	int err = vhd_open(&s->vhd, path, &oo, why);
	int64_t n;

	if (!err) {
		s->size = vhd_size(s->vhd);
		return 0;
	}
	if (err != -EINVAL)
		return err;
	if ((err = hio_open(&s->raw, path, HIO_CACHED, why)) < 0)
		return err;
	n = hio_size(s->raw);
	s->size = n > 0 ? (uint64_t)n : 0;
	return s->size ? 0 : why_set(why, -EINVAL, "%s: empty", path);
}

static int convert(const struct source *s, const char *dst, enum vhd_type type, struct why *why)
{
	/* An image's own size is kept: other programs agreed on it already. */
	const struct vhd_create_opts co = {.type = type, .size = s->size, .exact = s->vhd != NULL};
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	AUTO(freep) char *tmp = NULL;
	struct vhd *v = NULL;
	struct hio *raw = NULL;
	int err, e2 = 0;

	if (access(dst, F_OK) == 0)
		return why_set(why, -EEXIST, "%s: exists already; it is not replaced", dst);
	if (asprintf(&tmp, "%s.tmp-%d", dst, (int)getpid()) < 0)
		return -ENOMEM;
	if (type) {
		err = vhd_create(tmp, &co, why);
		if (!err)
			err = vhd_open(&v, tmp, &oo, why);
	} else {
		err = hio_open(&raw, tmp, HIO_WRITE | HIO_CREATE | HIO_CACHED, why);
		if (!err)
			err = hio_truncate(raw, s->size);
	}
	if (!err)
		err = copy(s, v, raw);
	if (raw && !err)
		err = hio_flush(raw);
	hio_close(raw);
	e2 = vhd_close(v);
	err = err ? err : e2;
	if (!err && rename(tmp, dst) < 0)
		err = -errno;
	if (err) {
		unlink(tmp);
		if (!why->line[0])
			why_set(why, err, "%s: %s", dst, strerror(-err));
	}
	return err;
}

static int image_convert(int argc, char **argv)
{
	static const char help[] = "convert --to raw|fixed|dynamic SRC DST\n\n"
				   "SRC is a VHD or a raw disk. Zeros stay holes. DST appears when it is complete.";
	static const struct {
		const char *name;
		enum vhd_type type;
	} kinds[] = {{"raw", 0}, {"fixed", VHD_FIXED}, {"dynamic", VHD_DYNAMIC}};
	struct source s = {.vhd = NULL};
	struct why why = {.line = ""};
	const char *to = NULL;
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt != 'o')
			return usage(opt == 'h' ? stdout : stderr, help);
		to = optarg;
	}
	if (!to || argc - optind != 2)
		return usage(stderr, help);
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strcmp(to, kinds[i].name) != 0)
			continue;
		err = open_source(argv[optind], &s, &why);
		if (!err)
			err = convert(&s, argv[optind + 1], kinds[i].type, &why);
		vhd_close(s.vhd);
		hio_close(s.raw);
		return err ? complain(&why, err) : TOOL_OK;
	}
	fprintf(stderr, "vhdnfs: --to \"%s\": expected raw, fixed or dynamic\n", to);
	return TOOL_USAGE;
}

int cmd_image(int argc, char **argv)
{
	static const char help[] = "create|info|convert …\n\n"
				   "  create   a new image, empty or with the files of a folder\n"
				   "  info     what an image is and what is in it\n"
				   "  convert  between raw, fixed and dynamic\n\n"
				   "\"vhdnfs image COMMAND --help\" says more.";
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {{"create", image_create}, {"info", image_info}, {"convert", image_convert}};

	if (argc > 1)
		for (size_t i = 0; i < ARRAY_LEN(commands); i++)
			if (strcmp(argv[1], commands[i].name) == 0)
				return commands[i].run(argc - 1, argv + 1);
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
		return usage(stdout, help);
	return usage(stderr, help);
}
