// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The load generator's inner loop. Run by BPF_PROG_RUN with live frames: the kernel hands it the template frame again
 * and again, each time it writes the next flow's source address, source port and checksums, and redirects the frame
 * into an interface. It runs on one core only, so its counters need no atomics.
 *
 * The kernel recycles the pages without restoring the template, and whoever forwarded a frame may have written into its
 * page (a router its MAC addresses and TTL): all headers are written every time. What is constant in a run is in
 * .rodata, so that the verifier removes the branches that are not taken in it: a plain load (one frame size, flows in
 * turn, no stamps, no flood) pays nothing for the others. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "traffic.h"

/* Longest wait for a packet's turn, in looks at the clock. */
#define SPINS_MAX (1 << 22)
/* How far the generator may fall behind its rate before it stops catching up: catching up is a burst. */
#define LAG_MAX_NS 1000000
/* The end of the run is looked for once in so many packets, a power of two: reading the clock costs as much as a packet. */
#define DEADLINE_EVERY 64

enum order { IN_TURN, UNIFORM, ZIPF };

/* Kinds of frames of one run: sizes of a mix and the flood's. The flood's is the last one. */
#define SHAPES 4
#define FLOOD (SHAPES - 1)
/* Packets after which a mix of sizes starts again. */
#define SLOTS 12
/* A power of two, so that a mask shows the verifier that an index is in bounds. */
#define SLOTS_ROOM 16
/* Headers, and a stamp behind TCP over IPv6, in the words by which they are copied. */
#define HEADER_WORDS_MAX 12

/* One kind of frame. Sums are ones' complement sums without checksums and without what varies. */
struct shape {
	__u64 header[HEADER_WORDS_MAX];
	__u32 bytes;
	__u32 ip_sum; /* of the IPv4 header */
	__u32 l4_sum; /* of pseudo header and segment */
	__u32 is_tcp;
};

/* Set before loading. */
const volatile __u32 ifindex = 0;
const volatile __u32 first = 0; /* number of the first flow */
const volatile __u32 flows = 1;
const volatile __u32 order = IN_TURN;
const volatile __u32 zipf_shift = 0; /* a random word shifted by it is an index into the quantiles */
const volatile __u64 interval_ns = 0; /* time between packets; 0: as fast as it goes */
const volatile __u64 run_ns = 0;      /* length of the run; 0: until the kernel stops repeating */
const volatile __u32 template_bytes = 0; /* length of a frame as it comes */
const volatile __u32 header_words = 6; /* 6, 8, 9 or 12 */
const volatile bool is_v6 = false;
const volatile bool has_tcp = false; /* some shape is TCP's */
const volatile bool is_stamped = false;
const volatile bool is_mixed = false;   /* more than one shape */
const volatile bool is_resized = false; /* not all as long as they come */
const volatile bool is_flood = false;
const volatile __u32 honest_every = 0;  /* of so many packets one is not the flood's; 0: none */
const volatile __u32 round_skip = 0;    /* slots left out when flows in turn begin again */
const volatile __u8 slots[SLOTS_ROOM] = {0}; /* shape of each slot */
const volatile struct shape shapes[SHAPES] = {0};

/* Number of each flow's next packet. As many as flows when there are stamps. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} numbers SEC(".maps");

/* Flows of a quantile of Zipf's distribution. */
struct quantile {
	__u32 first;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct quantile);
} quantiles SEC(".maps");

/* Read afterwards. */
__u64 sent = 0;
__u64 flooded = 0; /* of those, the flood's */
__u64 waited_ns = 0; /* time spent waiting for packets' turns */
__u32 is_over = 0;
__u64 random_state = 0; /* set before: the seed, not zero */

/* Flow of a packet, and what tells it from others. */
struct flow {
	__u32 number;
	__u16 port;
	__u16 low;
};

/* Those of the next packets in turn; `number` counts from the first flow. Set before, to the first ones. */
struct flow turn = {0, PORT_FIRST, LOW_FIRST};
struct flow flood = {0, PORT_FIRST, LOW_FLOOD};
static __u32 since_honest = 0;
static __u32 slot = 0;
static __u64 deadline_ns = 0;
static __u64 next_ns = 0;

static __always_inline __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static long is_due(__u32 i, void *now)
{
	*(__u64 *)now = bpf_ktime_get_ns();
	return *(__u64 *)now >= next_ns;
}

/* The kernel runs nothing else on this core meanwhile but interrupts: softirqs are off from the first packet of a batch
 * to the last. So what is waited is what the core has left. */
static __always_inline void wait_for_turn(void)
{
	__u64 start = bpf_ktime_get_ns(), now = start;

	next_ns += interval_ns;
	if (next_ns + LAG_MAX_NS < now)
		next_ns = now;
	if (now < next_ns)
		bpf_loop(SPINS_MAX, is_due, &now, 0);
	waited_ns += now - start;
}

static __always_inline int must_stop(void)
{
	__u64 now;

	if (!run_ns || (sent & (DEADLINE_EVERY - 1)))
		return is_over;
	now = bpf_ktime_get_ns();
	if (!deadline_ns)
		deadline_ns = now + run_ns;
	is_over = now >= deadline_ns;
	return is_over;
}

/* Xorshift (Marsaglia 2003, 13-7-17). Its high half is used. */
static __always_inline __u32 random_word(void)
{
	__u64 x = random_state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	random_state = x;
	return x >> 32;
}

static __always_inline __u32 random_below(__u32 count)
{
	return ((__u64)random_word() * count) >> 32;
}

static __always_inline __u32 random_flow(void)
{
	struct quantile *quantile;
	__u32 index;

	if (order == UNIFORM)
		return random_below(flows);
	index = random_word() >> zipf_shift;
	quantile = bpf_map_lookup_elem(&quantiles, &index);
	return quantile ? quantile->first + random_below(quantile->count) : 0;
}

static __always_inline struct flow next_honest(void)
{
	struct flow now = turn;

	if (order != IN_TURN) {
		now.number = random_flow();
		now.port = PORT_FIRST + (first + now.number) % PORTS;
		now.low = LOW_FIRST + (first + now.number) / PORTS;
	} else if (++turn.number == flows) {
		turn.number = 0;
		turn.port = PORT_FIRST + first % PORTS;
		turn.low = LOW_FIRST + first / PORTS;
		slot += round_skip;
	} else if (++turn.port == PORT_FIRST + PORTS) {
		turn.port = PORT_FIRST;
		turn.low++;
	}
	return now;
}

/* Two thousand million before the first one comes again. */
static __always_inline struct flow next_of_flood(void)
{
	struct flow now = flood;

	if (++flood.port == PORT_FIRST + PORTS) {
		flood.port = PORT_FIRST;
		flood.low = (flood.low + 1) | LOW_FLOOD;
	}
	return now;
}

static __always_inline bool is_floods_turn(void)
{
	if (!is_flood)
		return false;
	if (++since_honest != honest_every)
		return true;
	since_honest = 0;
	return false;
}

static __always_inline __u32 next_shape(void)
{
	if (!is_mixed)
		return 0;
	if (slot >= SLOTS)
		slot -= SLOTS;
	return slots[slot++ & (SLOTS_ROOM - 1)];
}

static __always_inline void copy_words(void *data, const volatile struct shape *shape, __u32 from, __u32 to)
{
	__u32 i;

#pragma unroll
	for (i = from; i < to; i++)
		AT(__u64, data, 8 * i) = shape->header[i];
}

static __always_inline void copy_headers(void *data, const volatile struct shape *shape)
{
	copy_words(data, shape, 0, 6);
	if (header_words > 6)
		copy_words(data, shape, 6, 8);
	if (header_words > 8)
		copy_words(data, shape, 8, 9);
	if (header_words > 9)
		copy_words(data, shape, 9, 12);
}

/* Writes number and time; returns their sum. The magic is among the headers. */
static __always_inline __u32 stamp(void *at, __u32 flow)
{
	__u32 *number = bpf_map_lookup_elem(&numbers, &flow);
	__u32 number_be = 0;
	__u64 time_be;

	if (number)
		number_be = bpf_htonl((*number)++);
	time_be = bpf_cpu_to_be64(bpf_ktime_get_ns());
	AT(__u32, at, 4) = number_be;
	AT(__u64, at, 8) = time_be;
	return (__u16)number_be + (number_be >> 16) + (__u16)time_be + (__u16)(time_be >> 16) +
	       (__u16)(time_be >> 32) + (time_be >> 48);
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *l4;
	const volatile struct shape *shape = &shapes[0];
	struct flow flow;
	bool is_of_flood;
	__u16 low, port;
	__u32 sum;

	if (data + 8 * header_words > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	if (must_stop())
		return XDP_DROP;
	if (interval_ns)
		wait_for_turn();

	is_of_flood = is_floods_turn();
	if (is_of_flood) {
		flow = next_of_flood();
		shape = &shapes[FLOOD];
		flooded++;
	} else {
		flow = next_honest();
		if (is_mixed)
			shape = &shapes[next_shape() & (SHAPES - 1)];
	}
	copy_headers(data, shape);

	low = bpf_htons(flow.low);
	port = bpf_htons(flow.port);
	l4 = data + (is_v6 ? V6_L4_AT : V4_L4_AT);
	if (is_v6) {
		AT(__u16, data, V6_SRC_LOW_AT) = low;
	} else {
		AT(__u16, data, V4_SRC_LOW_AT) = low;
		AT(__u16, data, V4_CHECK_AT) = checksum(shape->ip_sum + low);
	}
	AT(__u16, l4, 0) = port;
	sum = shape->l4_sum + low + port;
	if (has_tcp && shape->is_tcp) {
		if (is_stamped && !is_of_flood)
			sum += stamp(l4 + TCP_BYTES, flow.number);
		AT(__u16, l4, TCP_CHECK_AT) = checksum(sum);
	} else {
		if (is_stamped && !is_of_flood)
			sum += stamp(l4 + UDP_BYTES, flow.number);
		sum = checksum(sum);
		AT(__u16, l4, UDP_CHECK_AT) = sum ? sum : 0xffff;
	}
	if (is_resized && bpf_xdp_adjust_tail(ctx, shape->bytes - template_bytes))
		return XDP_ABORTED;
	sent++;
	return bpf_redirect(ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
