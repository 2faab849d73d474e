/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include <linux/types.h>

/* The generator's frames: Ethernet, IPv4 without options, UDP. In halves of words, for nothing more is aligned behind an
 * Ethernet header. */
struct datagram {
	__u8 macs[12];
	__be16 ether_type;
	__be16 version_tos;
	__be16 total_len;
	__be16 id;
	__be16 frag_off;
	__be16 ttl_protocol;
	__be16 ip_check;
	__be16 src_high;
	__be16 src_low;
	__be16 dst_high;
	__be16 dst_low;
	__be16 sport;
	__be16 dport;
	__be16 udp_len;
	__be16 udp_check;
};

/* Source ports of flows, counted up; then the source address goes on by one. */
#define PORT_FIRST 1024
#define PORTS 60000
