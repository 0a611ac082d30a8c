/* Fuzzes the order of events: the simulation of the session engine (reg-tests/unit/tunnel/sim.c) with its chances taken from the input.
 * When the input is used up, a fixed seed decides, and the schedule comes to its end. */
#define SIM_NO_MAIN
#include "../unit/tunnel/sim.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	chance.bytes = data;
	chance.left = size;
	run_schedule(1);
	chance.left = 0;
	return 0;
}
