/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * list.h - a doubly linked list whose links live in the elements
 *
 * An empty list, and an element that is on no list, point at themselves; list_del() leaves the element so, and
 * deleting it again does nothing.
 */
#ifndef VHDNFS_BASE_LIST_H
#define VHDNFS_BASE_LIST_H

#include <stdbool.h>

#include "vhd/base/cleanup.h"

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(l)                                                                                                   \
	{                                                                                                              \
		&(l), &(l)                                                                                             \
	}

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_between(struct list *e, struct list *prev, struct list *next)
{
	e->prev = prev;
	e->next = next;
	prev->next = e;
	next->prev = e;
}

static inline void list_push_back(struct list *l, struct list *e)
{
	list_insert_between(e, l->prev, l);
}

static inline void list_push_front(struct list *l, struct list *e)
{
	list_insert_between(e, l, l->next);
}

static inline void list_del(struct list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	list_init(e);
}

/* Moves every element of `from` to the end of `to`. */
static inline void list_splice_back(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(l, type, member) container_of(l, type, member)
#define list_first(l, type, member) list_entry((l)->next, type, member)
#define list_last(l, type, member) list_entry((l)->prev, type, member)

#define list_for_each(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)
/* The element may be removed from the list inside the loop. */
#define list_for_each_safe(it, tmp, head)                                                                              \
	for (struct list *it = (head)->next, *tmp = it->next; it != (head); it = tmp, tmp = it->next)

#endif
