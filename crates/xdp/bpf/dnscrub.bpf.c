// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// Limits queries in the kernel, before a socket sees them.
//
// Every packet ends in exactly one outcome, which is counted, and passes or is dropped by it. Passed is all
// that is not a whole UDP query to one of the services; this program protects a service, it does not judge.
// What is dropped came from a prefix that is over its limit while a limit is switched on.
//
// Numbers, structures and maps here have their twins in src/layout.rs; tests compare them. Compiled by
// `crates/xdp/compile`, which needs clang 14; the object is committed, so a build needs no compiler for it.
//
// Needs Linux 5.12: compare and exchange.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// ---- what the kernel fixes (include/uapi/linux/bpf.h and if_ether.h, RFC 791, RFC 8200, RFC 768, RFC 1035) ----

enum { XDP_DROP = 1, XDP_PASS = 2 };
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
};
enum { BPF_F_NO_PREALLOC = 1, BPF_NOEXIST = 1 };

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*ktime_ns)(void) = (void *)5;

enum { ETH_IPV4 = 0x0800, ETH_IPV6 = 0x86dd, ETH_VLAN = 0x8100, ETH_QINQ = 0x88a8 };
enum { UDP = 17, MORE_FRAGMENTS_OR_OFFSET = 0x3fff };
enum { ETH_HEADER = 14, VLAN_TAG = 4, IPV4_HEADER = 20, IPV6_HEADER = 40, UDP_HEADER = 8 };
enum { DNS_HEADER = 12, DNS_FLAGS = 2, DNS_QR = 0x80 };

#define be16(x) __builtin_bswap16(x)
#define always_inline __attribute__((always_inline)) static inline

// ---- what this program fixes ----

// What becomes of a packet. In the order of `Outcome` in src/outcome.rs.
enum outcome {
	NOT_OURS, // not a whole, unfragmented UDP packet to one of the services
	RESPONSE, // QR=1, or without a whole header: user space counts these
	UNLIMITED, // no limit is switched on
	EXEMPT, // the source is exempt
	WITHIN, // within all limits
	NO_ROOM, // the table took no entry for it
	OVER_FIRST, // over the limit of the longest prefix length
	OVER_WIDER, // over the limit of a wider prefix
	OUTCOMES,
};

enum { STEPS = 4, SLOTS = 3 };
enum { V4, V6 };

// A limit by prefix length: one packet each `interval`, and as many at once as `burst` holds. Nanoseconds.
struct step {
	u64 interval;
	u64 burst;
	u32 length;
	u32 pad;
};

// The limits of a family, the longest prefix first. An `interval` of 0 ends the list.
struct limits {
	struct step step[2][STEPS];
	u64 generation;
	u32 exempt[2]; // whether there are exempt prefixes of the family
};

// Which of the `limits` is in force; 0 for none.
struct control {
	u32 slot;
	u32 pad;
};

struct service {
	u8 address[16]; // IPv4 in the first four octets; all zero for every address
	u16 port; // in network order
	u16 family;
};

struct prefix {
	u32 length; // with FAMILY_BIT for IPv6
	u8 address[16];
};

enum { FAMILY_BIT = 0x100 };

// When the next packet is due if none is early (virtual scheduling), and by which limit.
struct bucket {
	u64 due;
	u64 interval;
	u64 burst;
	u64 generation;
};

struct allowance {
	u64 interval;
	u64 burst;
};

struct lpm4 {
	u32 length;
	u8 address[4];
};

struct lpm6 {
	u32 length;
	u8 address[16];
};

#define MAP(name, map_type, key_type, value_type, entries) \
	struct { \
		int(*type)[map_type]; \
		int(*max_entries)[entries]; \
		key_type *key; \
		value_type *value; \
	} name __attribute__((section(".maps"), used))
#define TRIE(name, key_type, entries) \
	struct { \
		int(*type)[BPF_MAP_TYPE_LPM_TRIE]; \
		int(*max_entries)[entries]; \
		int(*map_flags)[BPF_F_NO_PREALLOC]; \
		key_type *key; \
		u32 *value; \
	} name __attribute__((section(".maps"), used))

MAP(control, BPF_MAP_TYPE_ARRAY, u32, struct control, 1);
MAP(limits, BPF_MAP_TYPE_ARRAY, u32, struct limits, SLOTS);
MAP(services, BPF_MAP_TYPE_HASH, struct service, u32, 4096);
MAP(buckets, BPF_MAP_TYPE_LRU_HASH, struct prefix, struct bucket, 131072);
MAP(allowances, BPF_MAP_TYPE_HASH, struct prefix, struct allowance, 16384);
TRIE(exempt4, struct lpm4, 65536);
TRIE(exempt6, struct lpm6, 65536);
MAP(outcomes, BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, OUTCOMES);
// Tests set the time; in service the loader leaves `virtual_time` at 0, and the verifier removes the look.
MAP(clock, BPF_MAP_TYPE_ARRAY, u32, u64, 1);
volatile const u8 virtual_time = 0;

always_inline u64 now(void)
{
	if (virtual_time) {
		u32 zero = 0;
		u64 *at = map_lookup(&clock, &zero);
		return at ? *at : 0;
	}
	return ktime_ns();
}

// A packet's source and destination, as far as it is a UDP packet.
struct packet {
	u32 family;
	u32 source[4];
	struct service service;
};

// Reads the headers, and says whether it is a whole UDP packet with a whole DNS header or less. `*query`: it has a
// whole header with QR=0.
always_inline int read_packet(void *data, void *end, struct packet *packet, int *query)
{
	u8 *at = data;
	if (at + ETH_HEADER > (u8 *)end)
		return 0;
	u16 type = be16(*(u16 *)(at + 12));
	at += ETH_HEADER;
#pragma unroll
	for (int tag = 0; tag < 2; tag++) {
		if (type != ETH_VLAN && type != ETH_QINQ)
			break;
		if (at + VLAN_TAG > (u8 *)end)
			return 0;
		type = be16(*(u16 *)(at + 2));
		at += VLAN_TAG;
	}
	if (type == ETH_IPV4) {
		if (at + IPV4_HEADER > (u8 *)end)
			return 0;
		u32 header = (at[0] & 0x0f) * 4;
		if (at[0] >> 4 != 4 || header < IPV4_HEADER || at[9] != UDP)
			return 0;
		if (be16(*(u16 *)(at + 6)) & MORE_FRAGMENTS_OR_OFFSET)
			return 0;
		packet->family = V4;
		__builtin_memcpy(packet->source, at + 12, 4);
		__builtin_memcpy(packet->service.address, at + 16, 4);
		at += header;
	} else if (type == ETH_IPV6) {
		if (at + IPV6_HEADER > (u8 *)end)
			return 0;
		if (at[0] >> 4 != 6 || at[6] != UDP)
			return 0;
		packet->family = V6;
		__builtin_memcpy(packet->source, at + 8, 16);
		__builtin_memcpy(packet->service.address, at + 24, 16);
		at += IPV6_HEADER;
	} else {
		return 0;
	}
	if (at + UDP_HEADER > (u8 *)end)
		return 0;
	packet->service.port = *(u16 *)(at + 2);
	packet->service.family = packet->family;
	at += UDP_HEADER;
	*query = at + DNS_HEADER <= (u8 *)end && !(at[DNS_FLAGS] & DNS_QR);
	return 1;
}

always_inline int is_ours(struct service *service)
{
	if (map_lookup(&services, service))
		return 1;
	struct service any = { .port = service->port, .family = service->family };
	return map_lookup(&services, &any) != 0;
}

always_inline int is_exempt(const struct packet *packet)
{
	if (packet->family == V4) {
		struct lpm4 key = { .length = 32 };
		__builtin_memcpy(key.address, packet->source, 4);
		return map_lookup(&exempt4, &key) != 0;
	}
	struct lpm6 key = { .length = 128 };
	__builtin_memcpy(key.address, packet->source, 16);
	return map_lookup(&exempt6, &key) != 0;
}

// The first `length` bits of the source.
always_inline void prefix_of(const struct packet *packet, u32 length, struct prefix *prefix)
{
	u32 *to = (u32 *)prefix->address;
#pragma unroll
	for (u32 word = 0; word < 4; word++) {
		u32 before = word * 32;
		u32 kept = length > before ? length - before : 0;
		u32 mask = kept >= 32 ? 0xffffffff : ~(0xffffffff >> (kept & 31));
		to[word] = packet->source[word] & __builtin_bswap32(mask);
	}
	prefix->length = packet->family == V6 ? length | FAMILY_BIT : length;
}

// Takes a prefix's own limit over, or that of its length.
always_inline void adopt(struct bucket *bucket, const struct prefix *prefix, const struct step *step, u64 generation)
{
	const struct allowance *own = map_lookup(&allowances, prefix);
	bucket->interval = own ? own->interval : step->interval;
	bucket->burst = own ? own->burst : step->burst;
	bucket->generation = generation;
}

enum step_outcome { STEP_WITHIN, STEP_OVER, STEP_NO_ROOM };

// Counts a packet for a prefix. What is over the limit is not counted, so that a source that keeps sending gets
// through at its rate.
always_inline enum step_outcome count(const struct packet *packet, const struct step *step, u64 generation, u64 at)
{
	struct prefix prefix;
	prefix_of(packet, step->length, &prefix);
	struct bucket *bucket = map_lookup(&buckets, &prefix);
	if (!bucket) {
		struct bucket fresh = {};
		adopt(&fresh, &prefix, step, generation);
		fresh.due = at + fresh.interval;
		// another processor may have been first: one packet more gets through
		long failure = map_update(&buckets, &prefix, &fresh, BPF_NOEXIST);
		return failure && failure != -17 ? STEP_NO_ROOM : STEP_WITHIN;
	}
	if (bucket->generation != generation)
		adopt(bucket, &prefix, step, generation);
#pragma unroll
	for (int attempt = 0; attempt < 3; attempt++) {
		u64 due = bucket->due;
		u64 next = due > at ? due : at;
		if (next + bucket->interval - at > bucket->burst)
			return STEP_OVER;
		if (__sync_val_compare_and_swap(&bucket->due, due, next + bucket->interval) == due)
			break;
	}
	return STEP_WITHIN;
}

always_inline enum outcome judge(struct xdp_md *context)
{
	struct packet packet = {};
	int query;
	if (!read_packet((void *)(long)context->data, (void *)(long)context->data_end, &packet, &query))
		return NOT_OURS;
	if (!is_ours(&packet.service))
		return NOT_OURS;
	if (!query)
		return RESPONSE;
	u32 zero = 0;
	struct control *in_force = map_lookup(&control, &zero);
	if (!in_force || !in_force->slot)
		return UNLIMITED;
	struct limits *limit = map_lookup(&limits, &in_force->slot);
	if (!limit)
		return UNLIMITED;
	u32 family = packet.family & 1;
	if (!limit->step[family][0].interval)
		return UNLIMITED;
	if (limit->exempt[family] && is_exempt(&packet))
		return EXEMPT;
	u64 at = now();
	for (int number = 0; number < STEPS; number++) {
		struct step *step = &limit->step[family][number];
		if (!step->interval)
			break;
		switch (count(&packet, step, limit->generation, at)) {
		case STEP_OVER:
			return number ? OVER_WIDER : OVER_FIRST;
		case STEP_NO_ROOM:
			return NO_ROOM;
		case STEP_WITHIN:
			break;
		}
	}
	return WITHIN;
}

__attribute__((section("xdp"), used)) int dnscrub(struct xdp_md *context)
{
	u32 outcome = judge(context);
	u64 *counter = map_lookup(&outcomes, &outcome);
	if (counter)
		*counter += 1;
	switch (outcome) {
	case OVER_FIRST:
	case OVER_WIDER:
		return XDP_DROP;
	default:
		return XDP_PASS;
	}
}

char kernel_license[] __attribute__((section("license"), used)) = "Dual MIT/GPL";
