/* SPDX-License-Identifier: BSD-3-Clause */
/* config_int.h - what the file and the command line set in the same way; see config.h */
#ifndef VHDNFS_SERVER_CONFIG_INT_H
#define VHDNFS_SERVER_CONFIG_INT_H

#include "server/config.h"

/* A zeroed entry at the end of the array at *@array, of *@n of @size bytes. -ENOMEM. */
int config_grow(void *array, unsigned *n, size_t size);
/* @name NULL: the image's own. -EINVAL, -EEXIST with a line; *out is valid until the next image is added. */
int config_new_image(struct config *c, const char *path, const char *name, struct config_image **out, struct why *why);
/* true, yes, on; false, no, off. -EINVAL with what was expected. */
int config_bool(const char *text, bool *out, struct why *why);

#endif
