/* map.c - see map.h. */
#include "map.h"

#include <stdlib.h>
#include <string.h>

static size_t home(const map *m, const void *key) {
    return (size_t)(((uintptr_t)key >> 4) * 0x9E3779B97F4A7C15u >> 24) & (m->size - 1);
}

map_entry *wn_inc_map_find(const map *m, const void *key) {
    if (!m->n) return NULL;
    for (size_t i = home(m, key); m->at[i].key; i = (i + 1) & (m->size - 1))
        if (m->at[i].key == key) return &m->at[i];
    return NULL;
}

static map_entry *place(map *m, void *key) {
    size_t i = home(m, key);
    while (m->at[i].key && m->at[i].key != key) i = (i + 1) & (m->size - 1);
    return &m->at[i];
}

map_entry *wn_inc_map_enter(map *m, void *key) {
    map_entry *e = wn_inc_map_find(m, key);
    if (e) return e;
    if ((m->n + 1) * 2 > m->size) {
        map bigger = {.size = m->size ? m->size * 2 : 64, .n = m->n};
        bigger.at = calloc(bigger.size, sizeof *bigger.at);
        if (!bigger.at) return NULL;
        MAP_EACH(m, old) *place(&bigger, old->key) = *old;
        free(m->at);
        *m = bigger;
    }
    e = place(m, key);
    *e = (map_entry){.key = key};
    m->n++;
    return e;
}

void wn_inc_map_remove(map *m, map_entry *e) {
    size_t hole = (size_t)(e - m->at), mask = m->size - 1;
    for (size_t i = (hole + 1) & mask; m->at[i].key; i = (i + 1) & mask) {
        /* An entry may move into the hole unless its home lies behind the hole. */
        if (((i - home(m, m->at[i].key)) & mask) >= ((i - hole) & mask)) {
            m->at[hole] = m->at[i];
            hole = i;
        }
    }
    m->at[hole] = (map_entry){0};
    m->n--;
}

void wn_inc_map_free(map *m) {
    free(m->at);
    memset(m, 0, sizeof *m);
}
