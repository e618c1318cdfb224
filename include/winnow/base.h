/* base.h - status codes, error text, version: what every other public header needs. */
#ifndef WINNOW_BASE_H
#define WINNOW_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define WN_VERSION_MAJOR 0
#define WN_VERSION_MINOR 1
#define WN_VERSION_PATCH 0
#define WN_VERSION "0.1.0"

#ifdef __cplusplus
#define WN_BEGIN extern "C" {
#define WN_END }
#else
#define WN_BEGIN
#define WN_END
#endif
#if defined(__cplusplus) && __cplusplus >= 201402L
#define WN_UNSET_ = {} /* a field that an initialiser leaves out is zero: in C it goes without saying */
#else
#define WN_UNSET_
#endif

#define WN_API __attribute__((visibility("default")))
#define WN_LIKELY(x) __builtin_expect(!!(x), 1)
#define WN_UNLIKELY(x) __builtin_expect(!!(x), 0)

WN_BEGIN

/* What a call that can fail returns. WN_OK is 0, so `if (wn_x(...))` reads "if it failed". */
typedef enum wn_status {
    WN_OK = 0,
    WN_ERR_MEMORY,      /* the system has no memory to give, or the heap limit is reached */
    WN_ERR_ARGUMENT,    /* a nonsensical argument or option */
    WN_ERR_STATE,       /* right call, wrong moment: attached twice, detached thread, mutators left */
    WN_ERR_UNSUPPORTED, /* this collector or platform cannot do that */
    WN_ERR_IO           /* reading or writing a file failed */
} wn_status;

/* The name of a status ("WN_ERR_MEMORY"); never NULL. */
WN_API const char *wn_status_name(wn_status status);

/* What went wrong in the calling thread's last failing wn_ call: the rule that was broken and the remedy. Never NULL;
 * empty when nothing failed yet. The text belongs to the library and lasts until this thread's next failing call. */
WN_API const char *wn_error_message(void);

/* Sets that text (as printf does, at most 511 bytes) and returns `status`: for a library on top of this one, whose
 * failing calls end with `return wn_fail(...)`. The text names the rule and the remedy. */
WN_API wn_status wn_fail(wn_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The version of the library that is linked, "0.1.0"; compare with WN_VERSION of the headers. */
WN_API const char *wn_version(void);

/* Called for a broken client rule that only checking finds (a use after free, an undeclared root, a store without a
 * barrier, a type that names the wrong words), and, with `check`, for one that the call has no result to say by (an end
 * too many). The default prints `message` to stderr and aborts; a handler that returns lets the program go on at its
 * own risk. `rule` is one of "use-after-free", "wrong-slot", "wrong-thread", "type", "blocking-section", "no-collect",
 * "unwind", "unpin", "thread-exit" and "verify". It is called on the thread that made the call, or on one of the
 * collector's; it calls nothing of the library, and both texts last until it returns. */
typedef void (*wn_misuse_handler)(const char *rule, const char *message, void *data);

/* Sets the process-wide misuse handler; NULL restores the default. Any thread, not while heaps are in use. */
WN_API void wn_set_misuse_handler(wn_misuse_handler handler, void *data);

WN_END
#endif
