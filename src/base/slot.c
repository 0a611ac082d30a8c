/* Slots: see slot.h. One region of address space is reserved at the first use; slots are handed out from its start. The numbers of
 * those given back are kept behind the last slot, because their own pages go back to the kernel. What the slots hold is not known here. */
#include "mctunnel/base/slot.h"

#include "mctunnel/base/bug.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS 131072u
#define ALIGNMENT ((size_t)16)
#define SLOTS_SIZE ((size_t)SLOTS * SLOT_SIZE)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *region; /* set once, before the first slot is given */
static uint32_t *spare; /* behind the slots: numbers of those given back */
static size_t used;     /* slots ever handed out */
static size_t spare_n;
static bool hopeless;   /* the kernel refused the region */

static void reserve(void)
{
	uint8_t *p = mmap(NULL, SLOTS_SIZE + SLOTS * sizeof *spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		hopeless = true;
		return;
	}
	spare = (uint32_t *)(void *)(p + SLOTS_SIZE);
	__atomic_store_n(&region, p, __ATOMIC_RELEASE);
}

void *slot_get(void)
{
	void *slot = NULL;
	pthread_mutex_lock(&lock);
	if (!region && !hopeless)
		reserve();
	if (spare_n > 0)
		slot = region + (size_t)spare[--spare_n] * SLOT_SIZE;
	else if (region && used < SLOTS)
		slot = region + used++ * SLOT_SIZE;
	pthread_mutex_unlock(&lock);
	return slot;
}

bool slot_owns(const void *p)
{
	const uint8_t *base = __atomic_load_n(&region, __ATOMIC_ACQUIRE);
	return base && (const uint8_t *)p >= base && (const uint8_t *)p < base + SLOTS_SIZE;
}

static uint8_t *base_of(const void *p)
{
	size_t offset = (size_t)((const uint8_t *)p - region);
	BUG_ON(!slot_owns(p));
	return region + offset - offset % SLOT_SIZE;
}

size_t slot_rest(const void *p)
{
	return SLOT_SIZE - (size_t)((const uint8_t *)p - base_of(p));
}

void slot_put(void *slot)
{
	size_t offset = (size_t)((uint8_t *)slot - region);
	BUG_ON(base_of(slot) != slot);
	if (madvise(slot, SLOT_SIZE, MADV_DONTNEED) != 0)
		memset(slot, 0, SLOT_SIZE);
	pthread_mutex_lock(&lock);
	spare[spare_n++] = (uint32_t)(offset / SLOT_SIZE);
	pthread_mutex_unlock(&lock);
}

void *slot_take(struct slot_share *s, size_t size)
{
	if (size > SLOT_SIZE)
		return NULL;
	uint8_t *p = s->slot ? (uint8_t *)s->slot + s->used : NULL;
	if (!s->slot || size > SLOT_SIZE - s->used) {
		p = slot_get();
		if (!p || s->slot)
			return p;
		s->slot = p;
		s->used = 0;
	}
	s->used += (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
	s->tenants++;
	return p;
}

void slot_give(struct slot_share *s, void *p)
{
	if (base_of(p) != s->slot) {
		slot_put(p);
		return;
	}
	BUG_ON(s->tenants == 0);
	if (--s->tenants > 0)
		return;
	slot_put(s->slot);
	s->slot = NULL;
}

void slot_shed(void *p, size_t size)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)p, begin = (at + page - 1) & ~(page - 1), end = (at + size) & ~(page - 1);
	if (begin < end)
		(void)madvise((uint8_t *)p + (begin - at), end - begin, MADV_DONTNEED); /* refused for locked memory: as before then */
}
