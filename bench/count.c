/* What instructions.py asks of callgrind from within Python. */
#include <valgrind/callgrind.h>

void zero_counts(void) {
    CALLGRIND_ZERO_STATS;
}

void dump_counts(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
}
