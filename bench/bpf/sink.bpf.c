// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The far end of a load run: counts the generator's packets, all of them and, if asked, each flow's, reads their stamps,
 * and drops them or sends them back. Everything else that arrives is counted apart and dropped.
 *
 * What is constant is in .rodata, so that the verifier removes what is not asked for. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "traffic.h"

/* Latencies are counted in buckets: one for each nanosecond below LINEAR, then LINEAR for each power of two, so that a
 * bucket is at most a 64th of what it stands for. The last power of two that has buckets is 2^33 ns. */
#define LINEAR_BITS 6
#define LINEAR (1 << LINEAR_BITS)
#define POWER_LAST 33
#define BUCKETS ((POWER_LAST - LINEAR_BITS + 2) * LINEAR)

/* Set before loading. */
const volatile __u16 port = 0;  /* destination port that marks the generator's packets */
const volatile __u32 flows = 0; /* flows to count one by one; 0: none */
const volatile bool is_stamped = false;
const volatile bool is_echo = false;
const volatile bool is_reply = false; /* what arrives has been sent back: what was source is destination */

struct counts {
	__u64 packets;
	__u64 bytes;
	__u64 flood;
	__u64 others;
	__u64 unstamped;   /* packets without a stamp where one was expected */
	__u64 from_future; /* stamps later than now */
	__u64 beyond;      /* latencies above the last bucket */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} totals SEC(".maps");

/* Its size is set before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} per_flow SEC(".maps");

/* What the numbers of a flow's packets say. Flows are shared by cores when the interface has several queues. */
struct sequence {
	struct bpf_spin_lock lock;
	__u32 next; /* highest number seen, and one */
	__u64 seen; /* bit n: number next - 1 - n has been seen */
	__u64 packets;
	__u32 late;
	__u32 duplicates;
	__u32 ancient; /* of the late ones, those too old to tell whether they are duplicates */
	__u32 unused;
};

/* As above. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sequence);
} sequences SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} latencies SEC(".maps");

/* How long nothing came though something should have. Packets have places in one row, which is right for a load whose
 * flows are sent in turn and counted one by one. */
struct silence {
	struct bpf_spin_lock lock;
	__u32 unused;
	__u64 next;    /* highest place seen, and one */
	__u64 arrived; /* when the last packet came */
	__u64 longest;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct silence);
} silences SEC(".maps");

static __always_inline void count_silence(__u64 place, __u64 then, __u64 now)
{
	__u32 zero = 0;
	struct silence *s = bpf_map_lookup_elem(&silences, &zero);
	__u64 since;

	if (!s)
		return;
	bpf_spin_lock(&s->lock);
	since = s->arrived;
	/* With nothing lost in between, nothing was under way before this one left: the sender was silent. */
	if (place == s->next && then > since)
		since = then;
	if (s->next && now > since && now - since > s->longest)
		s->longest = now - since;
	if (place >= s->next)
		s->next = place + 1;
	s->arrived = now;
	bpf_spin_unlock(&s->lock);
}

static __always_inline void count_number(__u32 flow, __u32 number)
{
	struct sequence *s = bpf_map_lookup_elem(&sequences, &flow);
	__u32 ahead, behind;

	if (!s)
		return;
	bpf_spin_lock(&s->lock);
	s->packets++;
	ahead = number - s->next;
	behind = s->next - 1 - number;
	if ((__s32)ahead >= 0) {
		s->seen = ahead < 63 ? s->seen << (ahead + 1) | 1 : 1;
		s->next = number + 1;
	} else if (behind >= 64) {
		s->late++;
		s->ancient++;
	} else if (s->seen >> behind & 1) {
		s->duplicates++;
	} else {
		s->late++;
		s->seen |= 1ULL << behind;
	}
	bpf_spin_unlock(&s->lock);
}

/* The highest power of two that is not above `value`. */
static __always_inline __u32 power_of(__u64 value)
{
	__u32 power = 0;

	if (value >> 32) {
		value >>= 32;
		power += 32;
	}
	if (value >> 16) {
		value >>= 16;
		power += 16;
	}
	if (value >> 8) {
		value >>= 8;
		power += 8;
	}
	if (value >> 4) {
		value >>= 4;
		power += 4;
	}
	if (value >> 2) {
		value >>= 2;
		power += 2;
	}
	return power + (value >> 1 & 1);
}

static __always_inline void count_latency(struct counts *counts, __u64 then, __u64 now)
{
	__u64 *packets;
	__u32 power, shift, bucket;

	if (then > now) {
		counts->from_future++;
		return;
	}
	power = power_of(now - then);
	shift = power > LINEAR_BITS ? power - LINEAR_BITS : 0;
	bucket = shift * LINEAR + ((now - then) >> shift);
	packets = bpf_map_lookup_elem(&latencies, &bucket);
	if (packets)
		(*packets)++;
	else
		counts->beyond++;
}

static __always_inline void read_stamp(struct counts *counts, void *stamp, void *end, __u32 flow)
{
	__u64 now = bpf_ktime_get_ns(), then;
	__u32 number;

	if (stamp + STAMP_BYTES > end || AT(__u32, stamp, 0) != bpf_htonl(STAMP_MAGIC)) {
		counts->unstamped++;
		return;
	}
	number = bpf_ntohl(AT(__u32, stamp, 4));
	then = bpf_be64_to_cpu(AT(__u64, stamp, 8));
	if (flows) {
		count_number(flow, number);
		count_silence((__u64)number * flows + flow, then, now);
	}
	count_latency(counts, then, now);
}

static __always_inline void count_flow(__u32 flow)
{
	__u64 *packets = bpf_map_lookup_elem(&per_flow, &flow);

	/* Flows are shared by cores when the interface has several queues. */
	if (packets)
		__sync_fetch_and_add(packets, 1);
}

static __always_inline void swap_words(void *data, __u32 one, __u32 other)
{
	__u32 word = AT(__u32, data, one);

	AT(__u32, data, one) = AT(__u32, data, other);
	AT(__u32, data, other) = word;
}

/* Turns a packet round. Checksums stay right: the same is summed in another order. */
static __always_inline void turn_round(void *data, void *l4, bool is_v6)
{
	__u16 half = AT(__u16, data, 4);
	__u32 i;

	swap_words(data, 0, 6);
	AT(__u16, data, 4) = AT(__u16, data, 10);
	AT(__u16, data, 10) = half;
	if (is_v6) {
#pragma unroll
		for (i = 0; i < 16; i += 4)
			swap_words(data, ETH_HLEN + 8 + i, ETH_HLEN + 24 + i);
	} else {
		swap_words(data, ETH_HLEN + 12, ETH_HLEN + 16);
	}
	half = AT(__u16, l4, 0);
	AT(__u16, l4, 0) = AT(__u16, l4, 2);
	AT(__u16, l4, 2) = half;
}

enum fate { NOT_OURS, TAKEN, TURNED };

/* Takes a packet whose IP header has been looked at. */
static __always_inline enum fate take(struct counts *counts, void *data, void *end, __u8 protocol, bool is_v6)
{
	void *l4 = data + (is_v6 ? V6_L4_AT : V4_L4_AT);
	__u32 src_low_at = is_v6 ? V6_SRC_LOW_AT : V4_SRC_LOW_AT;
	__u32 dst_low_at = is_v6 ? V6_DST_LOW_AT : V4_DST_LOW_AT;
	__u16 low, client;
	__u32 flow;

	if (protocol != PROTO_UDP && protocol != PROTO_TCP)
		return NOT_OURS;
	if (AT(__u16, l4, is_reply ? 0 : 2) != bpf_htons(port))
		return NOT_OURS;
	low = bpf_ntohs(AT(__u16, data, is_reply ? dst_low_at : src_low_at));
	client = bpf_ntohs(AT(__u16, l4, is_reply ? 2 : 0));
	if (low >= LOW_FLOOD) {
		counts->flood++;
		return TAKEN;
	}
	counts->packets++;
	counts->bytes += end - data;
	flow = ((__u32)low - LOW_FIRST) * PORTS + client - PORT_FIRST;
	if (flows)
		count_flow(flow);
	if (is_stamped)
		read_stamp(counts, l4 + (protocol == PROTO_TCP ? TCP_BYTES : UDP_BYTES), end, flow);
	if (!is_echo)
		return TAKEN;
	turn_round(data, l4, is_v6);
	return TURNED;
}

SEC("xdp.frags")
int sink(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct counts *counts = bpf_map_lookup_elem(&totals, &zero);
	enum fate fate = NOT_OURS;

	if (!counts)
		return XDP_DROP;
	if (data + V4_L4_AT + UDP_BYTES > end) {
		counts->others++;
		return XDP_DROP;
	}
	if (AT(__u16, data, ETHER_TYPE_AT) == bpf_htons(ETH_P_IP)) {
		if (AT(__u8, data, ETH_HLEN) == 0x45)
			fate = take(counts, data, end, AT(__u8, data, V4_PROTOCOL_AT), false);
	} else if (AT(__u16, data, ETHER_TYPE_AT) == bpf_htons(ETH_P_IPV6)) {
		if (data + V6_L4_AT + UDP_BYTES <= end)
			fate = take(counts, data, end, AT(__u8, data, V6_NEXT_HEADER_AT), true);
	}
	if (fate == NOT_OURS)
		counts->others++;
	return fate == TURNED ? send_back(ctx->ingress_ifindex) : XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
