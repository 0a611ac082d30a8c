/* Random numbers of two kinds: secrets straight from the kernel, and a quick generator of the thread (xoshiro256**)
 * for jitter and balancing, which anyone who sees enough of it could predict. */
#include "mctunnel/base/rnd.h"

#include "mctunnel/base/bug.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

static _Thread_local struct {
	uint64_t s[4];
	bool seeded;
} gen;

void rnd_bytes(void *buf, size_t len)
{
	unsigned char *at = buf;

	while (len > 0) {
		ssize_t n = getrandom(at, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("no random numbers from the kernel: %s", strerror(errno));
		at += n;
		len -= (size_t)n;
	}
}

static uint64_t rotate(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

/* splitmix64: spreads one number over the whole state. */
static uint64_t spread(uint64_t *x)
{
	uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void rnd_seed(uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		gen.s[i] = spread(&seed);
	gen.seeded = true;
}

uint64_t rnd_u64(void)
{
	uint64_t *s = gen.s, result, shifted;

	if (!gen.seeded) {
		uint64_t seed;

		rnd_bytes(&seed, sizeof(seed));
		rnd_seed(seed);
	}
	result = rotate(s[1] * 5, 7) * 9;
	shifted = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= shifted;
	s[3] = rotate(s[3], 45);
	return result;
}

/* The high half of a product is the number; the few low halves that would make some numbers likelier are refused. */
uint32_t rnd_below(uint32_t n)
{
	uint32_t refused;
	uint64_t product;

	BUG_ON(n == 0);
	refused = -n % n;
	do
		product = (rnd_u64() >> 32) * n;
	while ((uint32_t)product < refused);
	return (uint32_t)(product >> 32);
}
