#define ALLOW_EXPERIMENTAL_API
/*
 * DPDK's rte_acl as a classifier, made to use 32 flows at a time with AVX-512, its fastest form. Builds once, says how long that
 * took and how much memory it needed, then does what it is told on its standard input, a line each:
 *
 *   run BURST SECONDS   looks all headers up in turn; answers with nanoseconds of thread CPU time per header
 *   check               answers with the first rule of each header, -1 if there is none
 *
 * usage: rte_acl 4|6 RULES HEADERS [EAL arguments]
 *
 * Rules, a line each, first one first: source, prefix length, destination, prefix length (addresses as 1 or 4 words), source ports
 * from and to, destination ports from and to, protocol, its mask. Headers: source, destination, ports, protocol.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_byteorder.h>
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_vect.h>

#define FIELDS_MAX 11
#define BURST_MAX 64

/* What is matched, in network byte order. */
struct header {
	uint8_t proto;
	uint8_t pad[3];
	uint32_t addr[8];
	uint16_t ports[2];
};

RTE_ACL_RULE_DEF(acl_rule, FIELDS_MAX);

static uint64_t nanos(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what)
{
	fprintf(stderr, "rte_acl: %s\n", what);
	exit(1);
}

static void define(struct rte_acl_config *config, int words)
{
	struct rte_acl_field_def *defs = config->defs;
	int field = 0;
	defs[field++] = (struct rte_acl_field_def){
		RTE_ACL_FIELD_TYPE_BITMASK, 1, 0, 0, offsetof(struct header, proto)};
	for (int word = 0; word < 2 * words; word++, field++)
		defs[field] = (struct rte_acl_field_def){RTE_ACL_FIELD_TYPE_MASK, 4, (uint8_t)field,
			(uint8_t)field, (uint32_t)(offsetof(struct header, addr) + 4u * (uint32_t)word)};
	for (int port = 0; port < 2; port++, field++)
		defs[field] = (struct rte_acl_field_def){RTE_ACL_FIELD_TYPE_RANGE, 2, (uint8_t)field,
			(uint8_t)(1 + 2 * words), (uint32_t)(offsetof(struct header, ports) + 2u * (uint32_t)port)};
	config->num_fields = (uint32_t)field;
	config->num_categories = 1;
}

/* One rule; false at the end. */
static int read_rule(FILE *file, struct acl_rule *rule, int words)
{
	memset(rule, 0, sizeof(*rule));
	int field = 1;
	for (int side = 0; side < 2; side++) {
		unsigned int length;
		for (int word = 0; word < words; word++)
			if (fscanf(file, "%" SCNu32, &rule->field[field + word].value.u32) != 1)
				return 0;
		if (fscanf(file, "%u", &length) != 1)
			return 0;
		for (int word = 0; word < words; word++, field++) {
			unsigned int part = length > 32 ? 32 : length;
			rule->field[field].mask_range.u32 = part;
			length -= part;
		}
	}
	for (int port = 0; port < 2; port++, field++)
		if (fscanf(file, "%" SCNu16 " %" SCNu16, &rule->field[field].value.u16,
			   &rule->field[field].mask_range.u16) != 2)
			return 0;
	unsigned int proto, mask;
	if (fscanf(file, "%u %u", &proto, &mask) != 2)
		return 0;
	rule->field[0].value.u8 = (uint8_t)proto;
	rule->field[0].mask_range.u8 = (uint8_t)mask;
	return 1;
}

static int read_header(FILE *file, struct header *header, int words)
{
	memset(header, 0, sizeof(*header));
	for (int word = 0; word < 2 * words; word++) {
		uint32_t part;
		if (fscanf(file, "%" SCNu32, &part) != 1)
			return 0;
		header->addr[word] = rte_cpu_to_be_32(part);
	}
	unsigned int from, to, proto;
	if (fscanf(file, "%u %u %u", &from, &to, &proto) != 3)
		return 0;
	header->ports[0] = rte_cpu_to_be_16((uint16_t)from);
	header->ports[1] = rte_cpu_to_be_16((uint16_t)to);
	header->proto = (uint8_t)proto;
	return 1;
}

static size_t heap(void)
{
	struct rte_malloc_socket_stats stats;
	return rte_malloc_get_socket_stats(0, &stats) == 0 ? stats.heap_allocsz_bytes : 0;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	int words = atoi(argv[1]) == 6 ? 4 : 1;
	FILE *rules = fopen(argv[2], "r"), *file = fopen(argv[3], "r");
	if (rules == NULL || file == NULL)
		fail("cannot read rules and headers");
	argv[3] = argv[0];
	if (rte_eal_init(argc - 3, argv + 3) < 0)
		fail("no EAL");
	rte_vect_set_max_simd_bitwidth(RTE_VECT_SIMD_512);

	struct rte_acl_config config;
	memset(&config, 0, sizeof(config));
	define(&config, words);
	struct rte_acl_param param = {"rules", 0, RTE_ACL_RULE_SZ(config.num_fields), 1 << 20};
	struct rte_acl_ctx *context = rte_acl_create(&param);
	if (context == NULL)
		fail("no context");
	uint32_t count = 0;
	char *packed = NULL;
	size_t room = 0;
	struct acl_rule rule;
	while (read_rule(rules, &rule, words)) {
		rule.data.category_mask = 1;
		rule.data.priority = (int32_t)(RTE_ACL_MAX_PRIORITY - (int32_t)count);
		rule.data.userdata = ++count;
		if (count * (size_t)param.rule_size > room)
			packed = realloc(packed, room = (room + 65536) * 2);
		memcpy(packed + (count - 1) * (size_t)param.rule_size, &rule, param.rule_size);
	}
	if (rte_acl_add_rules(context, (struct rte_acl_rule *)packed, count) != 0)
		fail("cannot add the rules");
	size_t before = heap();
	uint64_t from = nanos(CLOCK_THREAD_CPUTIME_ID);
	if (rte_acl_build(context, &config) != 0)
		fail("cannot build");
	uint64_t built = nanos(CLOCK_THREAD_CPUTIME_ID) - from;
	const char *form = "avx512x32";
	if (rte_acl_set_ctx_classify(context, RTE_ACL_CLASSIFY_AVX512X32) != 0)
		form = "its own choice";
	printf("built %.3f %zu %s\n", (double)built / 1e6, heap() - before, form);
	fflush(stdout);

	size_t headers = 0, space = 1 << 16;
	struct header *list = malloc(space * sizeof(*list));
	while (read_header(file, &list[headers], words))
		if (++headers == space)
			list = realloc(list, (space *= 2) * sizeof(*list));
	const uint8_t *data[BURST_MAX];
	uint32_t results[BURST_MAX];
	char line[64];
	while (fgets(line, sizeof(line), stdin) != NULL) {
		uint32_t burst = BURST_MAX;
		double seconds = 0;
		int is_check = strncmp(line, "check", 5) == 0;
		if (!is_check && sscanf(line, "run %" SCNu32 " %lf", &burst, &seconds) != 2)
			return 2;
		uint64_t start = nanos(CLOCK_THREAD_CPUTIME_ID), spent = 0, done = 0;
		do {
			for (size_t at = 0; at + burst <= headers || (is_check && at < headers); at += burst) {
				uint32_t n = headers - at < burst ? (uint32_t)(headers - at) : burst;
				for (uint32_t i = 0; i < n; i++)
					data[i] = (const uint8_t *)&list[at + i];
				rte_acl_classify(context, data, results, n, 1);
				done += n;
				for (uint32_t i = 0; is_check && i < n; i++)
					printf("%" PRId64 "\n", (int64_t)results[i] - 1);
			}
			spent = nanos(CLOCK_THREAD_CPUTIME_ID) - start;
		} while ((double)spent < seconds * 1e9);
		if (!is_check)
			printf("%.3f\n", (double)spent / (double)done);
		fflush(stdout);
	}
	return 0;
}
