/*
 * DPDK's rte_hash as a flow table: bulk lookup of 32 five-tuples, then one record of 128 bytes touched for each. The
 * keys are there already; nothing is parsed and nothing is tracked. Prints nanoseconds per packet.
 *
 * usage: rte_hash FLOWS SECONDS [EAL arguments]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_malloc.h>
#include <rte_prefetch.h>

#define BURST 32

struct key {
	uint32_t src, dst;
	uint16_t sport, dport;
	uint32_t proto;
};

struct record {
	uint64_t words[16];
};

static uint64_t nanos(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fill(struct key *key, uint32_t flow)
{
	memset(key, 0, sizeof(*key));
	key->src = 10u << 24 | flow >> 8;
	key->dst = 0xc0000201u;
	key->sport = (uint16_t)(0x8000 | (flow & 0xff));
	key->dport = 443;
	key->proto = 6;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	uint32_t flows = (uint32_t)strtoul(argv[1], NULL, 10);
	double seconds = atof(argv[2]);
	argv[2] = argv[0];
	if (rte_eal_init(argc - 2, argv + 2) < 0)
		return 1;
	struct rte_hash_parameters parameters = {
		.name = "flows",
		.entries = flows + flows / 16 + 64,
		.key_len = sizeof(struct key),
		.hash_func = rte_hash_crc,
		.socket_id = 0,
	};
	struct rte_hash *table = rte_hash_create(&parameters);
	struct record *records = rte_zmalloc(NULL, (size_t)flows * sizeof(*records), 64);
	if (table == NULL || records == NULL) {
		fprintf(stderr, "no memory for %" PRIu32 " flows\n", flows);
		return 1;
	}
	struct key key;
	for (uint32_t flow = 0; flow < flows; flow++) {
		fill(&key, flow);
		if (rte_hash_add_key_data(table, &key, (void *)(uintptr_t)flow) < 0) {
			fprintf(stderr, "cannot add flow %" PRIu32 "\n", flow);
			return 1;
		}
	}
	struct key keys[BURST];
	const void *pointers[BURST];
	for (int i = 0; i < BURST; i++)
		pointers[i] = &keys[i];
	uint64_t random = 0x9e3779b97f4a7c15u, spent = 0, packets = 0, start = nanos();
	while (nanos() - start < (uint64_t)(seconds * 1e9)) {
		for (int round = 0; round < 64; round++) {
			for (int i = 0; i < BURST; i++) {
				random ^= random << 13;
				random ^= random >> 7;
				random ^= random << 17;
				fill(&keys[i], (uint32_t)((random >> 32) * flows >> 32));
			}
			uint64_t hits = 0;
			void *data[BURST];
			uint64_t from = nanos();
			if (rte_hash_lookup_bulk_data(table, pointers, BURST, &hits, data) != BURST)
				return 1;
			for (int i = 0; i < BURST; i++)
				rte_prefetch0(&records[(uintptr_t)data[i]]);
			for (int i = 0; i < BURST; i++) {
				struct record *record = &records[(uintptr_t)data[i]];
				record->words[0]++;
				record->words[1] += 64;
			}
			spent += nanos() - from;
			packets += BURST;
		}
	}
	printf("%.3f\n", (double)spent / (double)packets);
	return 0;
}
