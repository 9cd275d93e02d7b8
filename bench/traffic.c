/* The traffic of bench/mixed.py and bench/naming.py, one program with four tasks:
 *
 *   traffic flood IFINDEX SRC_MAC DST_MAC TARGET SUFFIX FIRST_SOURCE SOURCES RATE SECONDS
 *       queries for random names under SUFFIX, from made-up addresses, as Ethernet frames
 *   traffic ask TARGET ZONE NAMES RATE SECONDS FILE
 *       a resolver that asks for names that exist: nNNNNNN.ZONE. Writes a line for each query: the
 *       second it was due in, microseconds to its answer, and what came: ok, truncated, other, lost
 *   traffic limit LISTEN SERVER RATE
 *       a server that does RATE queries a second: passes so many on, the others wait in the socket
 *   traffic play IFINDEX SRC_MAC DST_MAC TARGET FILE
 *       the packets of a file at their times, as Ethernet frames: for each its time in nanoseconds (8
 *       octets), source (4, as in the packet), port (2), IP TTL (2), length (4), all but the source in
 *       this machine's order, and the query
 *
 * For network namespaces only. "flood", "ask" and "play" end by themselves; "limit" ends with its parent.
 *
 * build: cc -O2 -Wall -o traffic traffic.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 53, SECOND = 1000000000, LONGEST = 300 };

static void fail(const char *what)
{
  perror(what);
  exit(1);
}

static uint64_t now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t when)
{
  struct timespec t = {(time_t)(when / SECOND), (long)(when % SECOND)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static uint64_t state;
static uint64_t random_bits(void) /* splitmix64 */
{
  uint64_t z = state += 0x9e3779b97f4a7c15ULL;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
  return z ^ z >> 31;
}

static struct sockaddr_in address_of(const char *text)
{
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
    fprintf(stderr, "%s: not an IPv4 address\n", text);
    exit(2);
  }
  return address;
}

static int udp(const char *bound, const char *connected)
{
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  if (fd < 0) fail("socket");
  struct sockaddr_in address;
  if (bound && (address = address_of(bound), bind(fd, (void *)&address, sizeof address))) fail(bound);
  if (connected && (address = address_of(connected), connect(fd, (void *)&address, sizeof address))) fail(connected);
  return fd;
}

/* a name in text behind `at`, as labels; returns where it ends */
static uint8_t *put_name(uint8_t *at, const char *name)
{
  while (*name) {
    size_t len = strcspn(name, ".");
    *at++ = (uint8_t)len;
    at = mempcpy(at, name, len);
    name += len + (name[len] == '.');
  }
  *at++ = 0;
  return at;
}

/* a query for type A with EDNS; returns its length */
static size_t put_query(uint8_t *packet, uint16_t id, const char *label, const char *suffix)
{
  static const uint8_t rest[] = {0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0};
  uint8_t head[12] = {(uint8_t)(id >> 8), (uint8_t)id, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1};
  uint8_t *at = mempcpy(packet, head, sizeof head);
  *at++ = (uint8_t)strlen(label);
  at = mempcpy(at, label, strlen(label));
  at = put_name(at, suffix);
  at = mempcpy(at, rest, sizeof rest);
  return (size_t)(at - packet);
}

/* ------------------------------------------------------------------ flood */

static uint16_t ip_checksum(const uint8_t *header)
{
  uint32_t sum = 0;
  for (int i = 0; i < 20; i += 2) sum += (uint32_t)header[i] << 8 | header[i + 1];
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return htons((uint16_t)~sum);
}

static void put_mac(uint8_t *at, const char *text)
{
  if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", at, at + 1, at + 2, at + 3, at + 4, at + 5) != 6) {
    fprintf(stderr, "%s: not a hardware address\n", text);
    exit(2);
  }
}

enum { HEADERS = 42 };

/* what is the same in all frames: from IFINDEX's SRC_MAC to DST_MAC and TARGET */
static void begin_frame(uint8_t *frame, char **arg)
{
  struct sockaddr_in target = address_of(arg[3]);
  put_mac(frame, arg[2]);
  put_mac(frame + 6, arg[1]);
  frame[12] = 8;                    /* IPv4 */
  frame[14] = 0x45, frame[22] = 57; /* its header is 20 octets; the TTL of somebody not too near */
  frame[23] = IPPROTO_UDP;
  memcpy(frame + 30, &target.sin_addr, 4);
  frame[37] = PORT;
}

/* the rest, around a query of `len` octets; the UDP checksum stays 0: none */
static void end_frame(uint8_t *frame, uint32_t source, uint16_t port, size_t len)
{
  uint16_t whole = htons((uint16_t)(28 + len)), datagram = htons((uint16_t)(8 + len));
  port = htons(port);
  memcpy(frame + 16, &whole, 2);
  memcpy(frame + 26, &source, 4);
  memcpy(frame + 34, &port, 2);
  memcpy(frame + 38, &datagram, 2);
  frame[24] = frame[25] = 0;
  uint16_t sum = ip_checksum(frame + 14);
  memcpy(frame + 24, &sum, 2);
}

static int open_link(const char *index)
{
  int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) fail("AF_PACKET");
  int on = 1, room = 8 << 20;
  setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = atoi(index)};
  if (bind(fd, (void *)&link, sizeof link)) fail("bind");
  return fd;
}

static int flood(char **arg)
{
  enum { AHEAD = 32 };
  static uint8_t frames[AHEAD][512];
  struct iovec parts[AHEAD];
  struct mmsghdr messages[AHEAD];
  memset(messages, 0, sizeof messages);
  struct sockaddr_in first = address_of(arg[5]);
  uint64_t sources = strtoull(arg[6], NULL, 10), rate = strtoull(arg[7], NULL, 10);
  double seconds = atof(arg[8]);
  if (!sources || !rate || seconds <= 0 || seconds > LONGEST) return 2;

  int fd = open_link(arg[0]);
  for (int i = 0; i < AHEAD; i++) {
    begin_frame(frames[i], arg);
    parts[i].iov_base = frames[i];
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  uint64_t sent = 0, refused = 0, start = now(), end = start + (uint64_t)(seconds * SECOND);
  for (uint64_t at = start; at < end; at = now()) {
    uint64_t due = (uint64_t)((double)(at - start) / SECOND * (double)rate);
    if (sent + refused >= due) {
      sleep_until(at + 100000);
      continue;
    }
    unsigned batch = due - sent - refused < AHEAD ? (unsigned)(due - sent - refused) : AHEAD;
    for (unsigned i = 0; i < batch; i++) {
      uint8_t *frame = frames[i];
      uint64_t bits = random_bits(), letters = random_bits();
      char label[13];
      for (int k = 0; k < 12; k++, letters /= 36) label[k] = "abcdefghijklmnopqrstuvwxyz0123456789"[letters % 36];
      label[12] = 0;
      size_t len = put_query(frame + HEADERS, (uint16_t)bits, label, arg[4]);
      uint32_t source = htonl(ntohl(first.sin_addr.s_addr) + (uint32_t)((bits >> 32) % sources));
      end_frame(frame, source, (uint16_t)(1024 + (bits >> 16) % 64000), len);
      parts[i].iov_len = HEADERS + len;
    }
    for (unsigned done = 0; done < batch;) {
      int n = sendmmsg(fd, messages + done, batch - done, 0);
      if (n > 0) done += (unsigned)n, sent += (uint64_t)n;
      else if (errno == ENOBUFS || errno == EAGAIN || errno == EIO) done++, refused++;
      else if (errno != EINTR) fail("sendmmsg");
    }
  }
  printf("{\"sent\": %llu, \"refused\": %llu}\n", (unsigned long long)sent, (unsigned long long)refused);
  return 0;
}

/* ------------------------------------------------------------------ play */

static int play(char **arg)
{
  struct __attribute__((packed)) { uint64_t at; uint32_t source; uint16_t port, ttl; uint32_t len; } it;
  static uint8_t frame[HEADERS + 4096];
  begin_frame(frame, arg);
  int fd = open_link(arg[0]);
  FILE *in = fopen(arg[4], "rb");
  if (!in) fail(arg[4]);
  uint64_t sent = 0, refused = 0, late = 0, start = now() + SECOND / 10;
  while (fread(&it, sizeof it, 1, in) == 1) {
    if (it.len > 4096 || fread(frame + HEADERS, 1, it.len, in) != it.len || it.at > 600ULL * SECOND) return 2;
    uint64_t due = start + it.at, at = now();
    if (due > at + 50000) sleep_until(due);
    else if (at > due + 20000000) late++;
    frame[22] = (uint8_t)it.ttl;
    end_frame(frame, it.source, it.port, it.len);
    /* a frame has at least 60 octets, and a query may be empty */
    size_t len = HEADERS + it.len;
    if (send(fd, frame, len < 60 ? 60 : len, 0) >= 0) sent++;
    else if (errno == ENOBUFS || errno == EAGAIN || errno == EIO) refused++;
    else if (errno != EINTR) fail("send");
  }
  printf("{\"sent\": %llu, \"refused\": %llu, \"late\": %llu}\n", (unsigned long long)sent,
         (unsigned long long)refused, (unsigned long long)late);
  return 0;
}

/* ------------------------------------------------------------------ ask */

enum { SOCKETS = 16, PATIENCE = 1 };
struct asked { uint64_t at, answered; uint32_t name; enum { LOST, OK, TRUNCATED, OTHER } what; };

static void take_answers(int *fds, struct asked *all, uint64_t asked)
{
  uint8_t packet[4096];
  char label[16];
  for (int s = 0; s < SOCKETS; s++) {
    ssize_t len;
    while ((len = recv(fds[s], packet, sizeof packet, 0)) >= 0 || errno == ECONNREFUSED) {
      if (len < 20 || !(packet[2] & 0x80)) continue;
      /* of the queries of this socket with this id the last; ids come again after 65,536 queries */
      uint64_t id = (uint64_t)packet[0] << 8 | packet[1];
      if (id >= asked) continue;
      uint64_t which = asked - 1 - (asked - 1 - id) % 65536;
      struct asked *it = &all[which];
      snprintf(label, sizeof label, "%cn%06u", 7, it->name);
      /* answers to a flood in our name come here too */
      if (which % SOCKETS != (uint64_t)s || it->answered || memcmp(packet + 12, label, 8)) continue;
      it->answered = now();
      if (packet[2] & 2) it->what = TRUNCATED;
      else it->what = (packet[3] & 15) == 0 && (packet[6] || packet[7]) ? OK : OTHER;
    }
  }
}

static int ask(char **arg)
{
  static const char *names[] = {"lost", "ok", "truncated", "other"};
  uint32_t zone_names = (uint32_t)atoi(arg[2]);
  uint64_t rate = strtoull(arg[3], NULL, 10);
  double seconds = atof(arg[4]);
  if (!zone_names || !rate || seconds <= 0 || seconds > LONGEST) return 2;
  uint64_t total = (uint64_t)(seconds * (double)rate), asked = 0;
  struct asked *all = calloc(total, sizeof *all);
  if (!all) fail("memory");
  int fds[SOCKETS];
  struct pollfd waits[SOCKETS];
  for (int s = 0; s < SOCKETS; s++) waits[s] = (struct pollfd){.fd = fds[s] = udp(NULL, arg[0]), .events = POLLIN};
  uint64_t start = now(), gap = SECOND / rate, last = start + total * gap + PATIENCE * (uint64_t)SECOND;
  for (;;) {
    uint64_t at = now();
    if (at >= last) break;
    while (asked < total && start + asked * gap <= at) {
      uint8_t packet[512];
      char label[16];
      all[asked].at = start + asked * gap;
      all[asked].name = (uint32_t)(random_bits() % zone_names);
      snprintf(label, sizeof label, "n%06u", all[asked].name);
      size_t len = put_query(packet, (uint16_t)asked, label, arg[1]);
      while (send(fds[asked % SOCKETS], packet, len, 0) < 0 && (errno == ECONNREFUSED || errno == EINTR)) {}
      asked++;
    }
    uint64_t next = asked < total ? start + asked * gap : last;
    at = now();
    struct timespec left = {0, next > at ? (long)((next - at) % SECOND) : 0};
    ppoll(waits, SOCKETS, &left, NULL);
    take_answers(fds, all, asked);
  }
  FILE *out = fopen(arg[5], "w");
  if (!out) fail(arg[5]);
  for (uint64_t i = 0; i < asked; i++) {
    struct asked *it = &all[i];
    uint64_t took = it->answered ? (it->answered - it->at) / 1000 : 0;
    if (took > PATIENCE * 1000000) it->what = LOST;
    fprintf(out, "%llu %llu %s\n", (unsigned long long)((it->at - start) / SECOND), (unsigned long long)took, names[it->what]);
  }
  return fclose(out) ? 1 : 0;
}

/* ------------------------------------------------------------------ limit */

_Noreturn static void limit(char **arg)
{
  static struct { struct sockaddr_in client; uint16_t id; } passed[65536];
  uint64_t gap = SECOND / strtoull(arg[2], NULL, 10), next = now();
  uint16_t id = 0;
  uint8_t packet[4096];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct pollfd waits[2] = {{.fd = udp(NULL, arg[1]), .events = POLLIN}, {.fd = udp(arg[0], NULL), .events = POLLIN}};
  for (;;) {
    uint64_t at = now();
    ssize_t len;
    struct sockaddr_in client;
    socklen_t size = sizeof client;
    while ((len = recv(waits[0].fd, packet, sizeof packet, 0)) >= 2) {
      uint16_t which;
      memcpy(&which, packet, 2);
      memcpy(packet, &passed[which].id, 2);
      sendto(waits[1].fd, packet, (size_t)len, 0, (void *)&passed[which].client, size);
    }
    if (at >= next) {
      len = recvfrom(waits[1].fd, packet, sizeof packet, 0, (void *)&client, &size);
      if (len >= 12) {
        id++;
        passed[id].client = client;
        memcpy(&passed[id].id, packet, 2);
        memcpy(packet, &id, 2);
        send(waits[0].fd, packet, (size_t)len, 0);
        /* what was not done in the last two milliseconds is not made up for */
        if (next + 2000000 < at) next = at - 2000000;
        next += gap;
        continue;
      }
    }
    struct timespec left = {0, at < next ? (long)(next - at) : SECOND / 10};
    ppoll(waits, at < next ? 1 : 2, &left, NULL);
  }
}

int main(int count, char **arg)
{
  state = now() ^ (uint64_t)getpid() << 32;
  prctl(PR_SET_TIMERSLACK, 1000);
  if (count == 11 && !strcmp(arg[1], "flood")) return flood(arg + 2);
  if (count == 8 && !strcmp(arg[1], "ask")) return ask(arg + 2);
  if (count == 5 && !strcmp(arg[1], "limit")) limit(arg + 2);
  if (count == 7 && !strcmp(arg[1], "play")) return play(arg + 2);
  fprintf(stderr, "usage: traffic flood|ask|limit|play ..., see traffic.c\n");
  return 2;
}
