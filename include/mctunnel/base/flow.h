/* A limit of bytes a second, of one stream or shared by many on all threads. Who wants to move bytes asks first, and says afterwards how many there were: it may be over by one
 * piece each, and waits the longer then. */
#ifndef MCTUNNEL_BASE_FLOW_H
#define MCTUNNEL_BASE_FLOW_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct flow { /* zeroes: nothing has flowed yet */
	atomic_uint_fast64_t free_ns;
};

/* 0: bytes may flow now, about flow_piece() of them; else the milliseconds after which to ask again. rate: bytes a second, not 0. By clock_us(). */
uint64_t flow_wait_ms(struct flow *f, uint64_t rate) __attribute__((warn_unused_result));
void flow_add(struct flow *f, uint64_t rate, size_t bytes); /* so many have flowed */
size_t flow_piece(uint64_t rate);                           /* what to move in one go at this rate */

#endif
