/* How a target stands by its checks, as HAProxy counts: so many bad ones in a row bring it down, so many good ones up. No clock and no I/O of its own. */
#ifndef MCTUNNEL_EDGE_STANDING_H
#define MCTUNNEL_EDGE_STANDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf_check;

struct standing {
	uint32_t rise, fall;
	uint32_t health;    /* 0 to rise + fall - 1; up from rise on */
	bool failed;        /* it has been down for a bad check, so that its next rise is a comeback */
	uint64_t since_ms;  /* when it last went up or down, or began */
	uint64_t risen_ms;  /* when it last came back; 0: it never did */
};

enum standing_change { STANDING_SAME, STANDING_ROSE, STANDING_FELL };

/* up: as if it had been good so far, but one bad check brings it down. Else one good check brings it up. */
void standing_init(struct standing *s, const struct conf_check *c, bool up, uint64_t now_ms);
void standing_adapt(struct standing *s, const struct conf_check *c); /* other rise and fall: it stays up, or down */
enum standing_change standing_note(struct standing *s, bool good, uint64_t now_ms);
enum standing_change standing_condemn(struct standing *s, uint64_t now_ms); /* down at once */

bool standing_up(const struct standing *s);
void standing_words(const struct standing *s, char *buf, size_t size); /* UP, UP 1/3, DOWN 1/2, DOWN */
uint32_t standing_pause(const struct standing *s, const struct conf_check *c); /* ms until the next check: interval, fastinter or downinter */

/* With slowstart the weight comes back in STANDING_STEPS steps. */
#define STANDING_STEPS 10
uint32_t standing_weight(const struct standing *s, const struct conf_check *c, uint32_t weight, uint64_t now_ms);
uint32_t standing_next_step(const struct standing *s, const struct conf_check *c, uint64_t now_ms); /* ms until the weight is another; 0: it is whole */

#endif
