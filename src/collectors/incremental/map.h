/*
 * map.h - a hash table from an address to a word, for the few objects about which something is noted beside the heap
 * (a pin's count, where a young object will be moved). Open addressing; removal shifts back, so there are no
 * gravestones.
 */
#ifndef WN_INCREMENTAL_MAP_H
#define WN_INCREMENTAL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct map_entry {
    void *key; /* NULL: free */
    uintptr_t value;
} map_entry;

typedef struct map {
    map_entry *at;
    size_t size, n;
} map;

/* The entry of a key, or NULL. */
map_entry *wn_inc_map_find(const map *m, const void *key);
/* The entry of a key, made with value 0 when there is none; NULL when memory is out. Moves other entries. */
map_entry *wn_inc_map_enter(map *m, void *key);
void wn_inc_map_remove(map *m, map_entry *e);
void wn_inc_map_free(map *m);

#define MAP_EACH(m, e)                                                                             \
    for (map_entry *e = (m)->at, *e##_end = e ? e + (m)->size : e; e < e##_end; e++) /* or none */ \
        if (e->key)

#endif
