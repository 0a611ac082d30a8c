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

/* Where the state is kept: a place that outlives a worker; and how many who have told one wait for their answer. Without this call both live and die with
 * the process. */
void vip_init(volatile uint32_t *place, volatile uint32_t *unanswered);
enum vip_state vip_get(void);
const char *vip_word(enum vip_state s);
/* Keeps it, logs it when it changed. -1: no such word. */
int vip_set(const char *word) __attribute__((warn_unused_result));
/* Thread 0: who has told it waits for an answer, or has it: a program that stops when the address has moved waits for that. */
void vip_asked(void);
void vip_answered(void);

#endif
