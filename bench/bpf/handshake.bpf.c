// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Both ends of the generator's TCP connections: each segment that arrives is answered by the next one of the handshake
 * in the same frame, sent back where it came from. The server holds no state for its answers; the client answers whatever
 * the server says. Which segments a flow has had is kept to tell the first of a kind from its repetitions.
 *
 *   client (generator, then this)      server
 *   SYN          ------------------->
 *                <-------------------  SYN ACK
 *   ACK          ------------------->               a handshake is complete
 *                <-------------------  FIN ACK      or RST ACK, or nothing, as it is asked for
 *   FIN ACK      ------------------->
 *                <-------------------  ACK          a connection is closed
 *
 * MAC addresses are swapped too, so that answers go back through whichever router the segment came from. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "traffic.h"

#define TTL 64
#define NO_OPTIONS 0x50

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define PSH 0x08
#define ACK 0x10

/* First numbers of both sides. The same for all connections, so that any segment of any of them can be made at any time. */
#define CLIENT_ISN 0x10000000
#define SERVER_ISN 0x20000000

enum ending { OPEN, BY_FIN, BY_RST };

/* Set before loading. */
const volatile __u16 port = 0;
const volatile __u32 flows = 1;
const volatile __u32 ending = OPEN;

/* What arrived, the same at both ends; the client has no `completed`. Of the first three the first of each flow is
 * counted, all others are `repeated`. */
struct counts {
	__u64 opened;    /* SYNs at the server, SYN ACKs at the client */
	__u64 completed; /* third segments with the right numbers */
	__u64 closed;    /* last segments of closing */
	__u64 repeated;
	__u64 data;   /* segments with payload, of whatever flow */
	__u64 flood;  /* segments of the flood's network: not answered */
	__u64 wrong;  /* segments of ours with numbers or flags that no step has */
	__u64 others; /* frames of anybody else */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} totals SEC(".maps");

/* Steps each flow has had, a bit each. */
#define HAS_OPENED 1
#define HAS_COMPLETED 2
#define HAS_CLOSED 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} steps SEC(".maps");

/* A segment without options, in host order. */
struct segment {
	void *data;
	void *tcp;
	__u32 number;
	__u32 acknowledged;
	__u32 payload;
	__u32 flow;
	__u32 ifindex;
	__u8 flags;
	bool is_v6;
};

static __always_inline __u32 sum_halves(void *at, __u32 bytes)
{
	__u32 sum = 0, i;

#pragma unroll
	for (i = 0; i < bytes; i += 2)
		sum += AT(__u16, at, i);
	return sum;
}

static __always_inline __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void swap_words(void *data, __u32 one, __u32 other)
{
	__u32 word = AT(__u32, data, one);

	AT(__u32, data, one) = AT(__u32, data, other);
	AT(__u32, data, other) = word;
}

static __always_inline void swap_halves(void *data, __u32 one, __u32 other)
{
	__u16 half = AT(__u16, data, one);

	AT(__u16, data, one) = AT(__u16, data, other);
	AT(__u16, data, other) = half;
}

static __always_inline void answer_ip(void *data, bool is_v6)
{
	__u32 i;

	swap_words(data, 0, 6);
	swap_halves(data, 4, 10);
	if (is_v6) {
		AT(__u16, data, ETH_HLEN + 4) = bpf_htons(TCP_BYTES);
		AT(__u8, data, ETH_HLEN + 7) = TTL;
#pragma unroll
		for (i = 0; i < 16; i += 4)
			swap_words(data, ETH_HLEN + 8 + i, ETH_HLEN + 24 + i);
		return;
	}
	AT(__u16, data, ETH_HLEN + 2) = bpf_htons(20 + TCP_BYTES);
	AT(__u8, data, ETH_HLEN + 8) = TTL;
	AT(__u16, data, V4_CHECK_AT) = 0;
	swap_words(data, ETH_HLEN + 12, ETH_HLEN + 16);
	AT(__u16, data, V4_CHECK_AT) = checksum(sum_halves(data + ETH_HLEN, 20));
}

/* Makes a segment its answer, to be sent back. What is behind the new segment is padding. */
static __always_inline int answer(struct segment *s, __u32 number, __u32 acknowledged, __u8 flags)
{
	__u32 sum = bpf_htons(PROTO_TCP) + bpf_htons(TCP_BYTES);

	answer_ip(s->data, s->is_v6);
	swap_halves(s->tcp, 0, 2);
	AT(__u32, s->tcp, 4) = bpf_htonl(number);
	AT(__u32, s->tcp, 8) = bpf_htonl(acknowledged);
	AT(__u8, s->tcp, 13) = flags;
	AT(__u16, s->tcp, 14) = 0xffff;
	AT(__u16, s->tcp, TCP_CHECK_AT) = 0;
	AT(__u16, s->tcp, 18) = 0;
	sum += s->is_v6 ? sum_halves(s->data + ETH_HLEN + 8, 32) : sum_halves(s->data + ETH_HLEN + 12, 8);
	sum += sum_halves(s->tcp, TCP_BYTES);
	AT(__u16, s->tcp, TCP_CHECK_AT) = checksum(sum);
	return send_back(s->ifindex);
}

/* Counts a step if it is its flow's first one of the kind. */
static __always_inline void count_step(struct counts *counts, __u64 *first, __u32 flow, __u32 step)
{
	__u32 *had = bpf_map_lookup_elem(&steps, &flow);

	/* Flows are shared by cores when the interface has several queues. */
	if (had && !(__sync_fetch_and_or(had, step) & step))
		(*first)++;
	else
		counts->repeated++;
}

/* Answers a segment from the client. */
static __always_inline int serve(struct counts *counts, struct segment *s)
{
	bool is_after_syn = s->number == CLIENT_ISN + 1;

	if (s->flags == SYN && s->number == CLIENT_ISN) {
		count_step(counts, &counts->opened, s->flow, HAS_OPENED);
		return answer(s, SERVER_ISN, CLIENT_ISN + 1, SYN | ACK);
	}
	if (s->payload && (s->flags & ~PSH) == ACK && is_after_syn && s->acknowledged == SERVER_ISN + 1) {
		counts->data++;
		return XDP_DROP;
	}
	if (!s->payload && s->flags == ACK && is_after_syn && s->acknowledged == SERVER_ISN + 1) {
		count_step(counts, &counts->completed, s->flow, HAS_COMPLETED);
		if (ending == OPEN)
			return XDP_DROP;
		return answer(s, SERVER_ISN + 1, CLIENT_ISN + 1, (ending == BY_FIN ? FIN : RST) | ACK);
	}
	if (s->flags == (FIN | ACK) && is_after_syn && s->acknowledged == SERVER_ISN + 2) {
		count_step(counts, &counts->closed, s->flow, HAS_CLOSED);
		return answer(s, SERVER_ISN + 2, CLIENT_ISN + 2, ACK);
	}
	counts->wrong++;
	return XDP_DROP;
}

/* Answers a segment from the server. */
static __always_inline int attend(struct counts *counts, struct segment *s)
{
	bool is_after_syn = s->number == SERVER_ISN + 1 && s->acknowledged == CLIENT_ISN + 1;

	if (s->flags == (SYN | ACK) && s->number == SERVER_ISN && s->acknowledged == CLIENT_ISN + 1) {
		count_step(counts, &counts->opened, s->flow, HAS_OPENED);
		return answer(s, CLIENT_ISN + 1, SERVER_ISN + 1, ACK);
	}
	if (s->flags == (FIN | ACK) && is_after_syn)
		return answer(s, CLIENT_ISN + 1, SERVER_ISN + 2, FIN | ACK);
	if ((s->flags == (RST | ACK) && is_after_syn) ||
	    (s->flags == ACK && s->number == SERVER_ISN + 2 && s->acknowledged == CLIENT_ISN + 2)) {
		count_step(counts, &counts->closed, s->flow, HAS_CLOSED);
		return XDP_DROP;
	}
	counts->wrong++;
	return XDP_DROP;
}

/* For the host's own stack: neighbours have to be found, where there is a router. */
static __always_inline int leave(struct counts *counts)
{
	counts->others++;
	return XDP_PASS;
}

/* Reads a segment whose IP header has been looked at, and answers it. */
static __always_inline int take(struct xdp_md *ctx, struct counts *counts, bool is_v6, bool is_server)
{
	void *end = (void *)(long)ctx->data_end, *data = (void *)(long)ctx->data;
	struct segment s = {.data = data, .tcp = data + (is_v6 ? V6_L4_AT : V4_L4_AT), .is_v6 = is_v6};
	__u32 low_at = is_server ? (is_v6 ? V6_SRC_LOW_AT : V4_SRC_LOW_AT)
				 : (is_v6 ? V6_DST_LOW_AT : V4_DST_LOW_AT);
	__u16 length, low;

	if (data + V4_L4_AT + TCP_BYTES > end || AT(__u8, data, is_v6 ? V6_NEXT_HEADER_AT : V4_PROTOCOL_AT) != PROTO_TCP)
		return leave(counts);
	length = bpf_ntohs(AT(__u16, data, ETH_HLEN + (is_v6 ? 4 : 2))) - (is_v6 ? 0 : 20);
	if (s.tcp + TCP_BYTES > end || length < TCP_BYTES ||
	    AT(__u16, s.tcp, is_server ? 2 : 0) != bpf_htons(port)) {
		counts->others++;
		return XDP_DROP;
	}
	low = bpf_ntohs(AT(__u16, data, low_at));
	if (low >= LOW_FLOOD) {
		counts->flood++;
		return XDP_DROP;
	}
	if (AT(__u8, s.tcp, 12) != NO_OPTIONS) {
		counts->wrong++;
		return XDP_DROP;
	}
	s.flow = ((__u32)low - LOW_FIRST) * PORTS + bpf_ntohs(AT(__u16, s.tcp, is_server ? 0 : 2)) - PORT_FIRST;
	s.number = bpf_ntohl(AT(__u32, s.tcp, 4));
	s.acknowledged = bpf_ntohl(AT(__u32, s.tcp, 8));
	s.flags = AT(__u8, s.tcp, 13);
	s.payload = length - TCP_BYTES;
	s.ifindex = ctx->ingress_ifindex;
	return is_server ? serve(counts, &s) : attend(counts, &s);
}

static __always_inline int receive(struct xdp_md *ctx, bool is_server)
{
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct counts *counts = bpf_map_lookup_elem(&totals, &zero);

	if (!counts)
		return XDP_DROP;
	if (data + V4_L4_AT + TCP_BYTES <= end) {
		if (AT(__u16, data, ETHER_TYPE_AT) == bpf_htons(ETH_P_IP) && AT(__u8, data, ETH_HLEN) == 0x45)
			return take(ctx, counts, false, is_server);
		if (AT(__u16, data, ETHER_TYPE_AT) == bpf_htons(ETH_P_IPV6))
			return take(ctx, counts, true, is_server);
	}
	return leave(counts);
}

SEC("xdp.frags")
int server(struct xdp_md *ctx)
{
	return receive(ctx, true);
}

SEC("xdp.frags")
int client(struct xdp_md *ctx)
{
	return receive(ctx, false);
}

char _license[] SEC("license") = "Dual BSD/GPL";
