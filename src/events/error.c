/* error.c - status names, the per-thread error text, and the report of broken client rules. */
#include "events/events.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char message[512];
static wn_misuse_handler misuse_handler;
static void *misuse_data;

const char *wn_status_name(wn_status status) {
    switch (status) {
    case WN_OK: return "WN_OK";
    case WN_ERR_MEMORY: return "WN_ERR_MEMORY";
    case WN_ERR_ARGUMENT: return "WN_ERR_ARGUMENT";
    case WN_ERR_STATE: return "WN_ERR_STATE";
    case WN_ERR_UNSUPPORTED: return "WN_ERR_UNSUPPORTED";
    case WN_ERR_IO: return "WN_ERR_IO";
    }
    return "unknown status";
}

const char *wn_error_message(void) { return message; }
const char *wn_version(void) { return WN_VERSION; }

/* The last message may be among what the next one is made of. */
static void say(const char *format, va_list args) {
    char text[sizeof message];
    vsnprintf(text, sizeof text, format, args);
    memcpy(message, text, sizeof message);
}

wn_status wn_fail(wn_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    return status;
}

void wn_set_misuse_handler(wn_misuse_handler handler, void *data) {
    misuse_handler = handler;
    misuse_data = data;
}

void wn_misuse(const char *rule, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (misuse_handler) {
        misuse_handler(rule, text, misuse_data);
        return;
    }
    fprintf(stderr, "winnow: %s: %s\n", rule, text);
    abort();
}

void wn_misuse_if(bool checked, const char *rule, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    if (checked) wn_misuse(rule, "%s", message);
}
