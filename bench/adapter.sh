#!/usr/bin/env bash
# Adapter of the side-by-side load bench for dnscrub: configures and runs it for one scenario.
# docs/performance.md says how the bench is run and what it measures.
#
# DNSCRUB        the binary (default: target/release/dnscrub of this repository)
# DNSCRUB_EXTRA  extra YAML lines for the configuration
# DNSCRUB_NAMES  how the shield scenario knows the zone: axfr, file (the bench's own zone file), learned;
#                by default axfr, or file where the server refuses transfers
# DNSCRUB_PRIMARY  the server that the names are transferred from (default: the backend)
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BIN=${DNSCRUB:-$HERE/target/release/dnscrub}

header() {
  cat <<YAML
workers: ${BENCH_WORKERS:-1}
listen:
  - address: "$BENCH_LISTEN:53"
pools:
  default:
    upstreams: [ { address: "$BENCH_BACKEND:53" } ]
    health: { query: "example.test. SOA" }
# the load comes from one address: no limit of its own on connections and what one may have in flight
tcp: { max-connections: 10000, max-connections-per-prefix: 10000, max-queries-in-flight: 1000 }
control: { socket: "$folder/control.sock" }
state: { folder: "$folder/state" }
YAML
}

# a mix of cheap kinds, none of which matches the clean queries; the same mix as for the peer
rules() {
  local i
  echo "rules:"
  for ((i = 1; i <= BENCH_ARG; i++)); do
    case $((i % 4)) in
    0) echo "  - { name: r$i, when: { qname: { under: r$i.block.test } }, do: drop }" ;;
    1) echo "  - { name: r$i, when: { source: 10.$((i % 200)).$((i / 200)).0/24 }, do: drop }" ;;
    2) echo "  - { name: r$i, when: { qtype: ANY, qname: { under: r$i.block.test } }, do: drop }" ;;
    3) echo "  - { name: r$i, when: { qname: { labels: 1..30, exact: r$i.block.test } }, do: drop }" ;;
    esac
  done
}

regexes() {
  local i
  echo "rules:"
  for ((i = 1; i <= BENCH_ARG; i++)); do
    echo "  - { name: r$i, when: { qname: { regex: '^[a-z0-9]{16,}\\.r$i\\.' } }, do: drop }"
  done
}

# whether a server gives the zone away: the rcode of its answer to an AXFR query over TCP
gives_transfers() {
  local reply
  exec 3<>"/dev/tcp/$1/53" || return 1
  printf '\0\x1e\x12\x34\0\0\0\1\0\0\0\0\0\0\7example\4test\0\0\xfc\0\1' >&3
  reply=$(timeout 2 head -c 6 <&3 | od -An -tx1 | tr -d ' \n')
  exec 3>&-
  [ "${reply: -1}" = 0 ]
}

# what protects without a rule being written: the defaults, and the names of the zone
shield() {
  local primary=${DNSCRUB_PRIMARY:-$BENCH_BACKEND} names=${DNSCRUB_NAMES:-}
  if [ -z "$names" ]; then
    if gives_transfers "$primary"; then names=axfr; else names=file; fi
    echo "names of the zone: $names" >&2
  fi
  case $names in
  axfr) echo "zones: [ { name: example.test, names: { axfr: \"$primary:53\" } } ]" ;;
  file) echo "zones: [ { name: example.test, names: { file: \"$BENCH_DATA/example.test.zone\" } } ]" ;;
  learned) ;;
  *) echo "DNSCRUB_NAMES: found $names, expected axfr, file or learned" >&2; return 2 ;;
  esac
}

config() {
  header
  case $BENCH_SCENARIO in
  forward) ;;
  refuse-all)
    echo "rules:"
    echo "  - { name: all-but-the-apex, when: { not: { qname: { exact: example.test } } }, do: refuse }" ;;
  block-src | block-src-set)
    echo "blocklist: { files: [ \"$BENCH_DATA/sources-$BENCH_ARG.list\" ] }" ;;
  block-suffix)
    echo "lists: { suffixes: { name-file: \"$BENCH_DATA/suffixes-$BENCH_ARG.list\" } }"
    echo "rules:"
    echo "  - { name: suffixes, when: { qname: { under: { list: suffixes } } }, do: drop }" ;;
  rules) rules ;;
  regex) regexes ;;
  ratelimit-drop) # per-source limiter first, then everything left under sink.test is dropped too
    echo "rules:"
    echo "  - { name: one-a-second, do: { rate-limit: { rate: 1/s, burst: 1, over: drop } } }"
    echo "  - { name: sink, when: { qname: { under: sink.test } }, do: drop }" ;;
  dynblock) # a source over its rate is blocked for ten minutes; what is left is dropped too
    cat <<'YAML'
rules:
  - { name: fast-sources, do: { rate-limit: { rate: 10/s, burst: 50 }, block: 10m } }
  - { name: sink, when: { qname: { under: sink.test } }, do: drop }
YAML
    ;;
  shield) shield ;;
  *) return 3 ;;
  esac
  printf '%s\n' "${DNSCRUB_EXTRA:-}"
}

case ${1:-} in
version) "$BIN" --version ;;
start)
  folder=$BENCH_WORK/dnscrub
  mkdir -p "$folder"
  rm -rf "$folder/state"
  config >"$folder/dnscrub.yaml" || exit $?
  ulimit -n 65536 2>/dev/null || true
  exec "$BIN" run --config "$folder/dnscrub.yaml"
  ;;
cleanup) ;;
*) echo "usage: $0 version|start|cleanup" >&2; exit 2 ;;
esac
