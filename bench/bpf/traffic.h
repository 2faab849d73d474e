/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* What the generator's frames have in common, for those who write and those who read them: Ethernet, IPv4 without
 * options or IPv6 without extension headers, UDP or TCP without options. Nothing is aligned to more than two bytes
 * behind an Ethernet header; both architectures that AF_XDP matters on read words there all the same. */
#define ETHER_TYPE_AT 12
#define V4_PROTOCOL_AT 23
#define V4_CHECK_AT 24
#define V4_SRC_LOW_AT 28
#define V4_DST_LOW_AT 32
#define V4_L4_AT 34
#define V6_NEXT_HEADER_AT 20
#define V6_SRC_LOW_AT 36
#define V6_DST_LOW_AT 52
#define V6_L4_AT 54

#define PROTO_TCP 6
#define PROTO_UDP 17
#define UDP_BYTES 8
#define UDP_CHECK_AT 6
#define TCP_BYTES 20
#define TCP_CHECK_AT 16

/* A flow's number is in its source port, counted up, and then in the last two bytes of its source address. */
#define PORT_FIRST 1024
#define PORTS 60000
/* Those two bytes of the first flow, and of the first packet of a flood. */
#define LOW_FIRST 0x4000
#define LOW_FLOOD 0x8000

/* Start of the payload, if asked for: number of the packet in its flow, CLOCK_MONOTONIC when it was made. */
#define STAMP_MAGIC 0x50414c53
#define STAMP_BYTES 16

#define AT(type, base, offset) (*(type *)((void *)(base) + (offset)))

/* Sends a packet back out of the interface it came in by. Not by XDP_TX: a veth wakes its peer for that only if there is
 * an XDP program on it, and what a bridge of the kernel is sent would lie in the ring. */
static __always_inline int send_back(__u32 ifindex)
{
	return bpf_redirect(ifindex, 0);
}
