/* What the master tells those around it: systemd (sd_notify's protocol) and keepalived (the health file). */
#ifndef MCTUNNEL_MAIN_NOTIFY_H
#define MCTUNNEL_MAIN_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes NOTIFY_SOCKET and WATCHDOG_USEC out of the environment, so that no child speaks for us. health_file: NULL or borrowed.
 * Nobody listening is not an error. */
void notify_open(const char *health_file);
void notify_close(void);

/* "READY=1", "STATUS=...", "STOPPING=1", "WATCHDOG=1", "MAINPID=..."; several divided by line feeds. */
void notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* systemd holds a duplicate of the descriptor under that name, or gives up all it has under it. */
void notify_store(const char *name, int fd);
void notify_unstore(const char *name);
void notify_barrier(void); /* waits (a second at most) until systemd has read all we have said so far */

/* How often systemd wants WATCHDOG=1 (half of its limit), 0: not at all. */
uint64_t notify_watchdog_ms(void);

/* keepalived's track_file: 0 serve, 1 move the virtual address. Never half written, and only when it changes.
 * -1 with the reason in err when it cannot be written. */
int notify_health(bool serve, char *err, size_t errsize) __attribute__((warn_unused_result));

/* For the worker, which may not open it: the file, to be given to notify_unfit() when the master has died. -1: there is none. */
int notify_health_fd(void);
void notify_unfit(int fd); /* writes 1; closes it */

#endif
