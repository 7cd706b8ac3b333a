/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_server.c - a scratch image and a server of our own for a benchmark */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench_hints.h"
#include "tools/control.h"
#include "vhd/base/cleanup.h"

/* Runs with what it says in @log. */
static pid_t spawn(const char *const argv[], const char *log)
{
	pid_t pid;

	unlink(log); /* nobody may read what the one before said */
	pid = fork();
	if (pid == 0) {
		int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		execv(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	return pid < 0 ? -errno : pid;
}

/* The last line of a log says what was wrong. */
static int failed(const char *log, struct why *why)
{
	char line[300] = "failed", buf[300];
	FILE *f = fopen(log, "r");

	while (f && fgets(buf, sizeof buf, f))
		snprintf(line, sizeof line, "%s", buf);
	if (f)
		fclose(f);
	line[strcspn(line, "\n")] = '\0';
	return why_set(why, -EIO, "%s", line);
}

static int fill(const char *dir, const char *name, uint64_t size)
{
	static uint64_t buf[(1 << 20) / 8];
	char path[600];
	uint64_t word = size;
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "w");
	if (!f)
		return -errno;
	for (uint64_t at = 0; at < size; at += sizeof buf) {
		for (size_t i = 0; i < ARRAY_LEN(buf); i++)
			buf[i] = word = word * 6364136223846793005u + 1442695040888963407u;
		fwrite(buf, 1, sizeof buf, f);
	}
	return fclose(f) ? -errno : 0;
}

static int find_programs(struct bench_server *s, struct why *why)
{
	ssize_t n = readlink("/proc/self/exe", s->vhdnfs, sizeof s->vhdnfs - 2);
	char *slash;

	if (n < 0)
		return -errno;
	s->vhdnfs[n] = '\0';
	slash = strrchr(s->vhdnfs, '/');
	snprintf(s->vhdnfsd, sizeof s->vhdnfsd, "%.*s/vhdnfsd", (int)(slash - s->vhdnfs), s->vhdnfs);
	if (access(s->vhdnfsd, X_OK) < 0)
		snprintf(s->vhdnfsd, sizeof s->vhdnfsd, "%.*s/../sbin/vhdnfsd", (int)(slash - s->vhdnfs), s->vhdnfs);
	if (access(s->vhdnfsd, X_OK) < 0)
		return why_set(why, -ENOENT, "no vhdnfsd beside %.300s", s->vhdnfs);
	return 0;
}

int bench_server_prepare(struct bench_server *s, uint64_t big, uint64_t hot, struct why *why)
{
	const char *tmp = getenv("TMPDIR");
	char files[600], size[32];
	int err, status;
	pid_t pid;

	*s = (struct bench_server){.pid = -1};
	if ((err = find_programs(s, why)) < 0)
		return err;
	snprintf(s->dir, sizeof s->dir, "%.400s/vhdnfs-bench.XXXXXX", tmp ? tmp : "/var/tmp");
	if (!mkdtemp(s->dir)) {
		s->dir[0] = '\0';
		return why_set(why, -errno, "%.300s: %s", tmp ? tmp : "/var/tmp", strerror(errno));
	}
	snprintf(files, sizeof files, "%s/files", s->dir);
	snprintf(s->image, sizeof s->image, "%s/disk.vhd", s->dir);
	snprintf(s->control, sizeof s->control, "%s/control", s->dir);
	snprintf(s->log, sizeof s->log, "%s/log", s->dir);
	if (mkdir(files, 0700) < 0 || (err = fill(files, "big", big)) < 0 || (err = fill(files, "hot", hot)) < 0)
		return why_set(why, -errno, "%s: %s", files, strerror(errno));
	/* Room for what is appended. */
	snprintf(size, sizeof size, "%lluM", (unsigned long long)((2 * big + hot) >> 20) + 64);
	pid = spawn((const char *[]){s->vhdnfs, "image", "create", "--size", size, "--from", files, s->image, NULL},
		    s->log);
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
		return failed(s->log, why);
	return 0;
}

/* Its address, from what it says. */
static bool ready(const char *log, struct nfs_url *u)
{
	static const char says[] = "ready on 127.0.0.1:";
	char line[300], *at;
	FILE *f = fopen(log, "r");
	bool found = false;

	while (f && !found && fgets(line, sizeof line, f))
		if ((at = strstr(line, says)) && strchr(at, '\n')) {
			snprintf(u->host, sizeof u->host, "127.0.0.1");
			snprintf(u->port, sizeof u->port, "%d", atoi(at + sizeof says - 1));
			found = true;
		}
	if (f)
		fclose(f);
	return found;
}

int bench_server_start(struct bench_server *s, const char *disk, const char *readahead, uint64_t cache, struct why *why)
{
	bool real = strcmp(disk, "real") == 0;
	char size[32];
	const char *argv[] = {
		s->vhdnfsd,    "--listen", "127.0.0.1:0",  "--control", s->control, "--no-root-squash",
		"--readahead", readahead,  "--cache-size", size,        s->image,   real ? NULL : "--disk-model",
		disk,          NULL};

	snprintf(size, sizeof size, "%llu", (unsigned long long)cache);
	s->pid = spawn(argv, s->log);
	if (s->pid < 0)
		return why_set(why, s->pid, "%.300s: %s", s->vhdnfsd, strerror(-s->pid));
	for (int i = 0; i < 3000; i++) {
		if (ready(s->log, &s->url))
			return 0;
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
			s->pid = -1;
			break;
		}
		nap_ms(10);
	}
	return failed(s->log, why);
}

void bench_server_stop(struct bench_server *s)
{
	if (s->pid <= 0)
		return;
	kill(s->pid, SIGTERM);
	waitpid(s->pid, NULL, 0);
	s->pid = -1;
}

static void remove_tree(const char *dir)
{
	DIR *d = opendir(dir);

	for (struct dirent *e; d && (e = readdir(d));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(dir);
}

void bench_server_remove(struct bench_server *s)
{
	char files[600];

	bench_server_stop(s);
	if (!s->dir[0])
		return;
	snprintf(files, sizeof files, "%s/files", s->dir);
	remove_tree(files);
	remove_tree(s->dir);
}

int bench_server_stats(struct bench_server *s, json_t **out, struct why *why)
{
	json_t *ask = json_pack("{s:s}", "do", "stat");
	int err = ask ? control_ask(s->control, ask, out, why) : -ENOMEM;

	json_decref(ask);
	return err;
}
