/* SPDX-License-Identifier: BSD-3-Clause */
/* tool.h - the subcommands of vhdnfs. Exit status: 0 done, 1 failed (one line said why), 2 wrong usage. */
#ifndef VHDNFS_TOOLS_TOOL_H
#define VHDNFS_TOOLS_TOOL_H

enum { TOOL_OK = 0, TOOL_FAILED = 1, TOOL_USAGE = 2 };

int cmd_image(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_cat(int argc, char **argv);
int cmd_get(int argc, char **argv);
int cmd_put(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_advise(int argc, char **argv);
int cmd_bench(int argc, char **argv);

#endif
