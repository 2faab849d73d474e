// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The far end of a load run: counts the generator's datagrams, all of them and, if asked, each flow's, and drops them.
 * Everything else that arrives is counted apart and dropped too. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "datagram.h"

#define PROTO_UDP 17

/* Set before loading. */
const volatile __u16 port = 0;  /* destination port that marks the generator's datagrams */
const volatile __u32 flows = 0; /* flows to count one by one; 0: none */
const volatile __u16 addr_low_first = 0;

struct counts {
	__u64 packets;
	__u64 bytes;
	__u64 others;
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

static __always_inline void count_flow(const struct datagram *h)
{
	__u32 low = bpf_ntohs(h->src_low) - addr_low_first;
	__u32 flow = low * PORTS + bpf_ntohs(h->sport) - PORT_FIRST;
	__u64 *packets = bpf_map_lookup_elem(&per_flow, &flow);

	/* Flows are shared by cores when the interface has several queues. */
	if (packets)
		__sync_fetch_and_add(packets, 1);
}

SEC("xdp.frags")
int sink(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct datagram *h = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct counts *counts = bpf_map_lookup_elem(&totals, &zero);

	if (!counts)
		return XDP_DROP;
	if ((void *)(h + 1) > end || h->ether_type != bpf_htons(ETH_P_IP) ||
	    (bpf_ntohs(h->ttl_protocol) & 0xff) != PROTO_UDP || h->dport != bpf_htons(port)) {
		counts->others++;
		return XDP_DROP;
	}
	counts->packets++;
	counts->bytes += end - (void *)h;
	if (flows)
		count_flow(h);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
