/* Figures of the process, from the kernel. */
#ifndef MCTUNNEL_ADMIN_PROCESS_H
#define MCTUNNEL_ADMIN_PROCESS_H

#include <stdint.h>

/* Before a chroot: opens what it needs of /proc. */
void process_init(void);
void process_fini(void);

double process_started(void); /* seconds since the epoch, at process_init */
double process_uptime(void);
double process_cpu_seconds(void);
int64_t process_resident(void); /* bytes; this and the next: -1 when it cannot be known */
int64_t process_descriptors(void);
int64_t process_descriptors_max(void);

#endif
