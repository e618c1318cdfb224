/* report.h - the tour itself, for the two files that know what is in it: tour.c and report.c. */
#ifndef WINNOW_TOOLS_TOUR_REPORT_H
#define WINNOW_TOOLS_TOUR_REPORT_H

#include <jansson.h>

#include "tour.h"

struct tour {
    wn_options options;
    wn_collector_id collector;
    const char *svg;
    bool json, color, unwritten;

    unsigned claims, failed;
    const char *chapter;
    json_t *values;     /* measured since the last claim */
    bool after_measure; /* the last line shows something measured */
};

#endif
