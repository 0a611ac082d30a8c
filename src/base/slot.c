/* Slots: see slot.h. One region of address space is reserved at the first use; slots are handed out from its start, and
 * those given back are chained through their first bytes. What the slots hold is not known here. */
#include "mctunnel/base/slot.h"

#include "mctunnel/base/bug.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

#define SLOTS 65536u

struct free_slot {
	struct free_slot *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *region; /* set once, before the first slot is given */
static size_t used;     /* slots ever handed out */
static struct free_slot *spare;
static bool hopeless;   /* the kernel refused the region */

static void reserve(void)
{
	void *p = mmap(NULL, (size_t)SLOTS * SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		hopeless = true;
	else
		__atomic_store_n(&region, p, __ATOMIC_RELEASE);
}

void *slot_get(void)
{
	void *slot = NULL;
	pthread_mutex_lock(&lock);
	if (!region && !hopeless)
		reserve();
	if (spare) {
		slot = spare;
		spare = spare->next;
	} else if (region && used < SLOTS) {
		slot = region + used++ * SLOT_SIZE;
	}
	pthread_mutex_unlock(&lock);
	return slot;
}

bool slot_owns(const void *p)
{
	const uint8_t *base = __atomic_load_n(&region, __ATOMIC_ACQUIRE);
	return base && (const uint8_t *)p >= base && (const uint8_t *)p < base + (size_t)SLOTS * SLOT_SIZE;
}

void slot_put(void *slot)
{
	struct free_slot *f = slot;
	BUG_ON(!slot_owns(slot) || ((uintptr_t)slot - (uintptr_t)region) % SLOT_SIZE != 0);
	pthread_mutex_lock(&lock);
	f->next = spare;
	spare = f;
	pthread_mutex_unlock(&lock);
}
