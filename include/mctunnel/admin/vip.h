/* Whether this host has the virtual address, as keepalived's notify script tells. */
#ifndef MCTUNNEL_ADMIN_VIP_H
#define MCTUNNEL_ADMIN_VIP_H

#include <stdint.h>

#define VIP_STATES(X) X(UNKNOWN, "unknown") X(MASTER, "master") X(BACKUP, "backup") X(FAULT, "fault")

enum vip_state {
#define VIP_ENUM(id, word) VIP_##id,
	VIP_STATES(VIP_ENUM)
#undef VIP_ENUM
	VIP_COUNT
};

/* Where the state is kept: a place that outlives a worker. Without this call it lives and dies with the process. */
void vip_init(volatile uint32_t *place);
enum vip_state vip_get(void);
const char *vip_word(enum vip_state s);
/* Keeps it, logs it when it changed. -1: no such word. */
int vip_set(const char *word) __attribute__((warn_unused_result));

#endif
