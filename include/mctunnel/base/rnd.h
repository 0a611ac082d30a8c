/* Random numbers. */
#ifndef MCTUNNEL_BASE_RND_H
#define MCTUNNEL_BASE_RND_H

#include <stddef.h>
#include <stdint.h>

/* From the kernel (getrandom): session and instance ids, keys. Dies if there is none. */
void rnd_bytes(void *buf, size_t len);

/* A fast generator of the thread (xoshiro, seeded by the kernel): jitter and balancing only. */
uint64_t rnd_u64(void);
uint32_t rnd_below(uint32_t n); /* 0 .. n-1, unbiased; n > 0 */
void rnd_seed(uint64_t seed);   /* tests: makes the thread's generator repeatable */

#endif
