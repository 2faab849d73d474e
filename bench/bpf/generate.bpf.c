// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The load generator's inner loop. Run by BPF_PROG_RUN with live frames: the kernel hands it the template frame again
 * and again, each time it writes the next flow's source address, source port and checksums, and redirects the frame
 * into an interface. It runs on one core only, so its counters need no atomics.
 *
 * The kernel recycles the pages without restoring the template: everything that varies is written every time. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "datagram.h"

/* Longest wait for a packet's turn, in looks at the clock. */
#define SPINS_MAX (1 << 22)
/* How far the generator may fall behind its rate before it stops catching up: catching up is a burst. */
#define LAG_MAX_NS 1000000
/* The end of the run is looked for once in so many packets, a power of two: reading the clock costs as much as a packet. */
#define DEADLINE_EVERY 64

/* Set before loading. */
const volatile __u32 ifindex = 0;
const volatile __u32 flows = 1;
const volatile __u64 interval_ns = 0; /* time between packets; 0: as fast as it goes */
const volatile __u64 run_ns = 0;      /* length of the run; 0: until the kernel stops repeating */
const volatile __u16 addr_low_first = 0; /* last two bytes of the first source address, host order */
const volatile __u32 ip_sum = 0;  /* ones' complement sum of the IP header without checksum and those two bytes */
const volatile __u32 udp_sum = 0; /* the same of pseudo header and datagram, also without the source port */

/* Read afterwards. */
__u64 sent = 0;
__u32 is_over = 0;

static __u32 flow = 0;
static __u16 port = PORT_FIRST;
static __u16 addr_low = 0;
static __u64 deadline_ns = 0;
static __u64 next_ns = 0;

static __always_inline __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static long is_due(__u32 i, void *ctx)
{
	return bpf_ktime_get_ns() >= next_ns;
}

static __always_inline void wait_for_turn(void)
{
	__u64 now = bpf_ktime_get_ns();

	next_ns += interval_ns;
	if (next_ns + LAG_MAX_NS < now)
		next_ns = now;
	if (now < next_ns)
		bpf_loop(SPINS_MAX, is_due, (void *)0, 0);
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

static __always_inline void next_flow(void)
{
	if (++flow == flows) {
		flow = 0;
		port = PORT_FIRST;
		addr_low = 0;
	} else if (++port == PORT_FIRST + PORTS) {
		port = PORT_FIRST;
		addr_low++;
	}
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct datagram *h = (void *)(long)ctx->data;
	__u16 low, source, sum;

	if ((void *)(h + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	if (must_stop())
		return XDP_DROP;
	if (interval_ns)
		wait_for_turn();

	low = bpf_htons(addr_low_first + addr_low);
	source = bpf_htons(port);
	h->src_low = low;
	h->ip_check = checksum(ip_sum + low);
	h->sport = source;
	sum = checksum(udp_sum + low + source);
	h->udp_check = sum ? sum : 0xffff;
	next_flow();
	sent++;
	return bpf_redirect(ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
