/*
 * DPDK's rte_hash as a flow table: bulk lookup of 32 five-tuples, then one record of 128 bytes touched for each. The
 * keys are there already; nothing is parsed and nothing is tracked. Prints nanoseconds per packet.
 *
 * The same table filled from nothing: each key added, 32 between two looks at the clock, and its record written. There is
 * no bulk insert. Prints nanoseconds per key; goes on until the table is full, whatever SECONDS says.
 *
 * And as a set of IPv4 addresses: lookup of one after the other, members and then strangers, and of 32 members at once.
 * Prints nanoseconds per address of each.
 *
 * usage: rte_hash flows|inserts|addresses COUNT SECONDS [EAL arguments]
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
#define SEED 0x9e3779b97f4a7c15u

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

static uint32_t draw(uint64_t *random, uint32_t count)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return (uint32_t)((*random >> 32) * count >> 32);
}

static struct rte_hash *make(uint32_t count, uint32_t key_len)
{
	struct rte_hash_parameters parameters = {
		.name = "keys",
		.entries = count + count / 16 + 64,
		.key_len = key_len,
		.hash_func = rte_hash_crc,
		.socket_id = 0,
	};
	return rte_hash_create(&parameters);
}

/* An empty table for flows, and their records; ends the program if there is no memory. */
static struct rte_hash *make_flows(uint32_t count, struct record **records)
{
	struct rte_hash *table = make(count, sizeof(struct key));
	*records = rte_zmalloc(NULL, (size_t)count * sizeof(**records), 64);
	if (table == NULL || *records == NULL) {
		fprintf(stderr, "no memory for %" PRIu32 " flows\n", count);
		exit(1);
	}
	return table;
}

static int inserts(uint32_t count)
{
	struct record *records;
	struct rte_hash *table = make_flows(count, &records);
	struct key keys[BURST];
	uint64_t spent = 0;
	for (uint32_t first = 0; first < count; first += BURST) {
		uint32_t many = count - first < BURST ? count - first : BURST;
		for (uint32_t i = 0; i < many; i++)
			fill(&keys[i], first + i);
		uint64_t from = nanos();
		for (uint32_t i = 0; i < many; i++) {
			if (rte_hash_add_key_data(table, &keys[i], (void *)(uintptr_t)(first + i)) < 0) {
				fprintf(stderr, "cannot add flow %" PRIu32 "\n", first + i);
				return 1;
			}
			struct record *record = &records[first + i];
			for (int word = 0; word < 16; word++)
				record->words[word] = keys[i].src + (uint64_t)word;
		}
		spent += nanos() - from;
	}
	if (rte_hash_count(table) != (int32_t)count) {
		fprintf(stderr, "%" PRId32 " flows of %" PRIu32 "\n", rte_hash_count(table), count);
		return 1;
	}
	printf("%.3f\n", (double)spent / count);
	return 0;
}

static int flows(uint32_t count, double seconds)
{
	struct record *records;
	struct rte_hash *table = make_flows(count, &records);
	struct key key;
	for (uint32_t flow = 0; flow < count; flow++) {
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
	uint64_t random = SEED, spent = 0, packets = 0, start = nanos();
	while (nanos() - start < (uint64_t)(seconds * 1e9)) {
		for (int round = 0; round < 64; round++) {
			for (int i = 0; i < BURST; i++)
				fill(&keys[i], draw(&random, count));
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

/* The address with a number: spread over the space, and no two alike; ours are the same. */
static uint32_t address(uint32_t number)
{
	return number * 0x9e3779b1u;
}

/* Nanoseconds per lookup of a random one of `count` addresses from the one with number `first` on. */
static double single(const struct rte_hash *table, uint32_t first, uint32_t count, double seconds)
{
	uint64_t random = SEED, asked = 0, found = 0, start = nanos(), spent;
	do {
		for (int round = 0; round < 4096; round++) {
			uint32_t key = address(first + draw(&random, count));
			found += rte_hash_lookup(table, &key) >= 0;
		}
		asked += 4096;
		spent = nanos() - start;
	} while (spent < (uint64_t)(seconds * 1e9));
	if (found != (first == 0 ? asked : 0))
		exit(1);
	return (double)spent / (double)asked;
}

static double bulk(const struct rte_hash *table, uint32_t count, double seconds)
{
	uint32_t keys[BURST];
	const void *pointers[BURST];
	for (int i = 0; i < BURST; i++)
		pointers[i] = &keys[i];
	uint64_t random = SEED, asked = 0, start = nanos(), spent;
	do {
		for (int round = 0; round < 128; round++) {
			int32_t positions[BURST];
			for (int i = 0; i < BURST; i++)
				keys[i] = address(draw(&random, count));
			if (rte_hash_lookup_bulk(table, pointers, BURST, positions) < 0 || positions[0] < 0)
				exit(1);
		}
		asked += 128 * BURST;
		spent = nanos() - start;
	} while (spent < (uint64_t)(seconds * 1e9));
	return (double)spent / (double)asked;
}

static int addresses(uint32_t count, double seconds)
{
	struct rte_hash *table = make(count, sizeof(uint32_t));
	for (uint32_t number = 0; number < count; number++) {
		uint32_t key = address(number);
		if (table == NULL || rte_hash_add_key(table, &key) < 0) {
			fprintf(stderr, "cannot add address %" PRIu32 "\n", number);
			return 1;
		}
	}
	printf("%.3f %.3f %.3f\n", single(table, 0, count, seconds), single(table, 2 * count, count, seconds),
	       bulk(table, count, seconds));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	const char *mode = argv[1];
	uint32_t count = (uint32_t)strtoul(argv[2], NULL, 10);
	double seconds = atof(argv[3]);
	argv[3] = argv[0];
	if (rte_eal_init(argc - 3, argv + 3) < 0)
		return 1;
	if (strcmp(mode, "addresses") == 0)
		return addresses(count, seconds);
	return strcmp(mode, "inserts") == 0 ? inserts(count) : flows(count, seconds);
}
