/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/*
 * Hands every frame to the AF_XDP socket of the queue it came in on. Nothing is looked at here: parsing, tracking and
 * rules are user space's. A queue that no socket serves is a closed wire: the frame is dropped and counted, so that the
 * host's own stack never sees what the firewall was to judge.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define QUEUES_MAX 256

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} palisade_xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} palisade_lost SEC(".maps");

SEC("xdp.frags")
int palisade_xdp(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;
	__u32 zero = 0;
	__u64 *lost;

	if (bpf_map_lookup_elem(&palisade_xsks, &queue))
		return bpf_redirect_map(&palisade_xsks, queue, XDP_DROP);
	lost = bpf_map_lookup_elem(&palisade_lost, &zero);
	if (lost)
		*lost += 1;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
