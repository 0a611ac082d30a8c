/* The role of this host for the virtual address: told from outside, kept, shown. Nothing here acts on it. */
#include "mctunnel/admin/vip.h"

#include "mctunnel/base/log.h"
#include "mctunnel/base/stat.h"

#include <string.h>

static const char *const words[VIP_COUNT] = {
#define VIP_WORD(id, word) word,
	VIP_STATES(VIP_WORD)
#undef VIP_WORD
};

static volatile uint32_t own, own_count, *state = &own, *waiting = &own_count;

void vip_init(volatile uint32_t *place, volatile uint32_t *unanswered)
{
	state = place;
	waiting = unanswered;
	*waiting = 0; /* whoever asked a worker that is dead gets no answer */
}

void vip_asked(void)
{
	++*waiting;
}

void vip_answered(void)
{
	--*waiting;
}

enum vip_state vip_get(void)
{
	uint32_t s = *state;

	return s < VIP_COUNT ? (enum vip_state)s : VIP_UNKNOWN;
}

const char *vip_word(enum vip_state s)
{
	return words[s];
}

static void change(enum vip_state to)
{
	struct log_rec r;

	log_begin(&r, LOG_NOTICE, "vip");
	log_str(&r, "from", vip_word(vip_get()));
	log_str(&r, "to", vip_word(to));
	log_end(&r);
	*state = to;
	stat_add(STAT_VIP_CHANGES, 1);
}

int vip_set(const char *word)
{
	for (int s = VIP_UNKNOWN + 1; s < VIP_COUNT; s++) {
		if (strcmp(words[s], word) != 0)
			continue;
		if (vip_get() != (enum vip_state)s)
			change((enum vip_state)s);
		return 0;
	}
	return -1;
}
