/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * image_create.c - vhdnfs image create
 *
 * With a file system: mke2fs makes it in a sparse raw file beside the target (it can fill it from a folder by itself), the raw
 * file is copied into a new image, and the image gets its name when it is complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/image.h"
#include "tools/tool.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"

#define FS_BLOCK 4096u
#define FS_MIN (64u << 20)
#define INODE_BYTES 256u
#define INODE_RATIO 16384u /* mke2fs gives an inode to so many bytes */

struct create {
	struct vhd_create_opts o;
	const char *fs, *from;
	uint64_t inodes; /* that the folder needs */
	bool azure;
};

/* ---- how large ------------------------------------------------------------------------------------------------------------- */

static struct {
	uint64_t bytes, files;
} found;

static int count_file(const char *path, const struct stat *st, int type, struct FTW *at)
{
	uint64_t used = min_u64((uint64_t)st->st_size, (uint64_t)st->st_blocks * 512 + FS_BLOCK);

	(void)path;
	(void)at;
	if (type == FTW_NS)
		return 0;
	found.files++;
	if (S_ISDIR(st->st_mode))
		used = max_u64((uint64_t)st->st_size, FS_BLOCK);
	else if (!S_ISREG(st->st_mode))
		used = (uint64_t)st->st_size; /* links; the rest has none */
	/* A file with several names is counted for each: too much is harmless. */
	found.bytes += round_up_u64(used, FS_BLOCK);
	return 0;
}

/* A file that is made in the folder that fills it would become part of itself. */
static bool lies_in(const char *path, const char *folder)
{
	AUTO(freep) char *copy = strdup(path), *top = realpath(folder, NULL);
	AUTO(freep) char *dir = copy ? realpath(dirname(copy), NULL) : NULL;
	size_t n = top ? strlen(top) : 0;

	while (n && top[n - 1] == '/')
		n--;
	return top && dir && strncmp(dir, top, n) == 0 && (dir[n] == '/' || !dir[n]);
}

/* What the folder takes in an ext4, and with it what the file system takes itself, and room to work in. */
static int measure(struct create *c, struct why *why)
{
	uint64_t need, inodes;
	struct stat st;

	if (stat(c->from, &st) < 0)
		return why_set(why, -errno, "%s: %s", c->from, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return why_set(why, -ENOTDIR, "%s: not a folder", c->from);
	found.bytes = found.files = 0;
	if (nftw(c->from, count_file, 64, FTW_PHYS) < 0)
		return why_set(why, -errno, "%s: %s", c->from, strerror(errno));
	inodes = found.files + found.files / 4 + 1024;
	need = found.bytes + inodes * INODE_BYTES;
	need += need / 4 + FS_MIN; /* extents, reserved blocks, journal, growth */
	if (!c->o.size)
		c->o.size = round_up_u64(need, 1u << 20);
	if (inodes > c->o.size / INODE_RATIO)
		c->inodes = inodes;
	return 0;
}

/* ---- mke2fs ---------------------------------------------------------------------------------------------------------------- */

/* The last line that a program says is what is told of its failure. */
static void last_line(int fd, char *line, size_t cap)
{
	char text[4096];
	size_t n = 0, start = 0;
	ssize_t got;

	while ((got = read(fd, text + n, sizeof text - 1 - n)) > 0 || (got < 0 && errno == EINTR)) {
		n += got > 0 ? (size_t)got : 0;
		if (n == sizeof text - 1) { /* keep the second half */
			n = sizeof text / 2;
			memmove(text, text + sizeof text - 1 - n, n);
		}
	}
	while (n && (text[n - 1] == '\n' || text[n - 1] == ' '))
		n--;
	text[n] = '\0';
	for (size_t i = 0; i < n; i++)
		if (text[i] == '\n' || text[i] == '\r' || text[i] == '\b')
			start = i + 1;
	snprintf(line, cap, "%s", text + start);
}

static int run_program(char *const argv[], const char *subject, struct why *why)
{
	int fd[2], status;
	const char *said;
	char line[300];
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		dup2(fd[1], STDOUT_FILENO);
		dup2(fd[1], STDERR_FILENO);
		setenv("PATH", "/sbin:/usr/sbin:/bin:/usr/bin", 1);
		setenv("LC_ALL", "C", 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(fd[1]);
	if (pid > 0)
		last_line(fd[0], line, sizeof line);
	close(fd[0]);
	if (pid < 0)
		return why_set(why, -EAGAIN, "%s: could not be started", argv[0]);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return why_set(why, -ENOENT, "%s is missing: install e2fsprogs", argv[0]);
	said = strncmp(line, "mke2fs: ", 8) == 0 ? line + 8 : line;
	return why_set(why, -EIO, "%s: %s: %s", subject, argv[0], said[0] ? said : "failed");
}

/* A raw file with an ext4 over all of it, filled from c->from when that is given. */
static int make_fs(const char *raw, const char *path, const struct create *c, uint64_t size, struct why *why)
{
	char owner[80], inodes[32];
	const char *argv[16] = {"mke2fs", "-q", "-F", "-t", "ext4", "-E", owner};
	AUTO(closep) int fd = open(raw, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	uid_t uid = geteuid();
	gid_t gid = getegid();
	struct stat st;
	int n = 7;

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (c->from && stat(c->from, &st) == 0) {
		uid = st.st_uid;
		gid = st.st_gid;
	}
	/* The file is a hole: nothing has to be zeroed, now or by whoever mounts it. */
	snprintf(owner, sizeof owner, "assume_storage_prezeroed=1,root_owner=%u:%u", uid, gid);
	if (size >= FS_MIN) { /* mke2fs would take 1 KiB below 512 MiB */
		argv[n++] = "-b";
		argv[n++] = "4096";
	}
	if (c->inodes) {
		snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)c->inodes);
		argv[n++] = "-N";
		argv[n++] = inodes;
	}
	if (c->from) {
		argv[n++] = "-d";
		argv[n++] = c->from;
	}
	argv[n++] = raw;
	return run_program((char *const *)(uintptr_t)argv, c->from ? c->from : path, why);
}

/* ---- create ---------------------------------------------------------------------------------------------------------------- */

static int fill(const char *image, const char *raw, struct why *why)
{
	const struct vhd_open_opts oo = {.flags = VHD_OPEN_WRITE};
	struct image_side from = {.vhd = NULL}, to = {.vhd = NULL};
	int err, closed;

	if ((err = vhd_open(&to.vhd, image, &oo, why)) < 0)
		return err;
	err = hio_open(&from.raw, raw, HIO_CACHED, why);
	if (!err) {
		int64_t n = hio_size(from.raw);

		from.size = n < 0 ? 0 : (uint64_t)n;
		to.size = vhd_size(to.vhd);
		err = image_copy(&from, &to, "create", why);
	}
	hio_close(from.raw);
	closed = vhd_close(to.vhd);
	if (!err && closed)
		err = why_set(why, closed, "%s: %s", image, strerror(-closed));
	return err;
}

static int create_with_fs(const char *path, const struct create *c, struct why *why)
{
	uint64_t size = c->o.exact ? round_up_u64(c->o.size, 512) : vhd_round_size(c->o.size);
	const char *tmp = image_temp(path, "tmp"), *raw = image_temp(path, "raw");
	int err = tmp && raw ? 0 : -ENOMEM;

	if (!err)
		err = make_fs(raw, path, c, size, why);
	if (!err)
		err = vhd_create(tmp, &c->o, why);
	if (!err)
		err = fill(tmp, raw, why);
	if (!err)
		err = hio_publish(tmp, path, why);
	image_temp_done(raw);
	image_temp_done(tmp);
	return err;
}

/* vhd_create() has no other temporary file than this. */
static int create_empty(const char *path, const struct create *c, struct why *why)
{
	const char *tmp = image_temp(path, "new");
	int err = tmp ? vhd_create(path, &c->o, why) : -ENOMEM;

	image_temp_done(tmp);
	return err;
}

static int create(const char *path, struct create *c, struct why *why)
{
	int err;

	if (access(path, F_OK) == 0)
		return why_set(why, -EEXIST, "%s: exists already; it is not replaced", path);
	if (c->from && (err = measure(c, why)) < 0)
		return err;
	if (c->from && lies_in(path, c->from))
		return why_set(why, -EINVAL, "%s: would lie in the folder %s that it is filled from", path, c->from);
	if (c->azure)
		c->o.size = image_azure_size(c->o.size);
	if (c->o.size > VHD_MAX_SIZE)
		return why_set(why, -EFBIG, "%s: size %llu: a VHD has at most 2040 GiB", path,
			       (unsigned long long)c->o.size);
	return c->fs ? create_with_fs(path, c, why) : create_empty(path, c, why);
}

/* False: wrong usage, and it was said. */
static bool parse_option(struct create *c, int opt)
{
	switch (opt) {
	case 'f':
		c->o.type = VHD_FIXED;
		return true;
	case 's':
		if (size_parse(optarg, &c->o.size) == 0 && c->o.size)
			return true;
		fprintf(stderr, "vhdnfs: --size \"%s\": expected a size such as 10G\n", optarg);
		return false;
	case 't':
		c->fs = optarg;
		if (strcmp(optarg, "ext4") == 0)
			return true;
		fprintf(stderr, "vhdnfs: --fs \"%s\": expected ext4\n", optarg);
		return false;
	case 'd':
		c->from = optarg;
		return true;
	case 'e':
		c->o.exact = true;
		return true;
	case 'A':
		c->azure = c->o.exact = true;
		c->o.type = VHD_FIXED;
		return true;
	case 'p':
		c->o.parent = optarg;
		c->o.type = VHD_DIFF;
		return true;
	default:
		return false;
	}
}

static void told(const char *path, const struct create *c)
{
	uint64_t size = c->o.exact ? round_up_u64(c->o.size, 512) : vhd_round_size(c->o.size);
	char text[SIZE_TEXT];

	if (image_answer()) {
		json_object_set_new(image_answer(), "path", json_text(path));
		if (c->o.parent)
			json_object_set_new(image_answer(), "parent", json_text(c->o.parent));
		else
			json_object_set_new(image_answer(), "size", json_integer((json_int_t)size));
		return;
	}
	if (c->o.parent) {
		printf("%s: differencing VHD over %s\n", path, c->o.parent);
		return;
	}
	printf("%s: %s VHD, %s%s%s\n", path, c->o.type == VHD_FIXED ? "fixed" : "dynamic", size_text(size, text),
	       c->fs ? ", " : "", c->fs ? c->fs : "");
	if (vhd_round_size(size) != size)
		fprintf(stderr,
			"vhdnfs: %s: no geometry gives %llu bytes; programs that go by it (QEMU before 10) see a "
			"little less\n",
			path, (unsigned long long)size);
}

int image_create(int argc, char **argv)
{
	static const char help[] =
		"create [--fixed] [--size SIZE] [--fs ext4] [--from DIR] [--exact | --azure] FILE\n"
		"       vhdnfs image create --parent PARENT FILE\n\n"
		"  --fixed     all of the disk in the file; by default the image grows (dynamic)\n"
		"  --size SIZE 10G, 512M, …; with --from it may be left out\n"
		"  --fs ext4   make a file system in it\n"
		"  --from DIR  fill it with the files of a folder (makes an ext4)\n"
		"  --exact     keep the size; by default it is rounded up so that all programs agree on it\n"
		"  --azure     as Azure takes them: fixed, whole MiB, at least 20 MiB\n"
		"  --parent PARENT  a differencing image: it holds what is written from now on, PARENT the rest";
	struct create c = {.o = {.type = VHD_DYNAMIC}};
	struct why why = {.line = ""};
	int opt, err;

	while ((opt = getopt_long(argc, argv, "h", image_options, NULL)) != -1) {
		if (opt == 'h')
			return image_usage(stdout, help);
		if (!strchr("fstdeAp", opt))
			return image_usage(stderr, help);
		if (!parse_option(&c, opt))
			return TOOL_USAGE;
	}
	if (argc - optind != 1 || (!c.o.size && !c.from && !c.o.parent) ||
	    (c.o.parent && (c.o.size || c.from || c.fs || c.o.type != VHD_DIFF)))
		return image_usage(stderr, help);
	if (c.from && !c.fs)
		c.fs = "ext4";
	if ((err = create(argv[optind], &c, &why)) < 0)
		return image_complain(&why, err);
	told(argv[optind], &c);
	return TOOL_OK;
}
