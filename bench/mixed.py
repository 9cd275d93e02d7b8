#!/usr/bin/env python3
"""A legitimate resolver beside a flood of random names, through one proxy after the other, live.

    client 198.18.0.1 ---- 198.18.0.2  proxy  198.18.1.1 ---- 198.18.1.2  NSD, a zone of 100,000 names
                                                              198.18.1.3  the same, 5,000 queries a second

Three network namespaces joined by veth pairs; nothing leaves them, every load ends by itself, and the
namespaces are removed at the end. The resolver asks for existing names at 2,000 queries a second for
--calm seconds, then for --flood seconds beside a flood. Prints a table; writes results.jsonl, every
query in *.queries, and a plot for each case to --out.

A query counts as answered if records came within a second: not if TC=1 came, an error or nothing.

Needs root and the Debian packages nsd, iproute2, ethtool, gcc, util-linux, for dnsdist also dnsdist.
"""
import argparse
import ctypes
import json
import math
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ZONE, NAMES, RATE = "example.test", 100_000, 2_000
CLIENT, PROXY, SERVER, LIMITED = "198.18.0.1", "198.18.0.2", "198.18.1.2", "198.18.1.3"
MADE_UP, MADE_UP_ALL = "10.64.0.0", "10.64.0.0/10"
SERVER_CAN = 5_000  # queries a second of the limited server
LOAD_CORE, PROXY_CORE = "0", "1"

# name -> suffix of the random names, first source, sources, queries a second, server
CASES = {}
for label, rate in (("50k", 50_000), ("200k", 200_000)):
    CASES[f"apex-1M-src.{label}"] = (ZONE, MADE_UP, 1_000_000, rate, SERVER)
    CASES[f"victim-1M-src.{label}"] = ("victim." + ZONE, MADE_UP, 1_000_000, rate, SERVER)
    CASES[f"apex-1k-src.{label}"] = (ZONE, MADE_UP, 1_000, rate, SERVER)
CASES["own-address.50k"] = (ZONE, CLIENT, 1, 50_000, SERVER)
CASES["limited-server.50k"] = (ZONE, MADE_UP, 1_000_000, 50_000, LIMITED)

# dnsdist: settings for throughput; "-shield" adds the dynamic blocks that its guide recommends, with a limit
# on queries above what the resolver sends
DNSDIST = """
setACL({"0.0.0.0/0"})
setSecurityPollSuffix("")
setUDPMultipleMessagesVectorSize(64)
setUDPSocketBufferSizes(4194304, 4194304)
addLocal("%(proxy)s:53", {reusePort=true})
newServer({address="%(server)s:53", checkName="example.test.", checkType="SOA", mustResolve=true})
"""
SHIELD = """
getPool(""):setCache(newPacketCache(200000, {maxTTL=86400}))
setRingBuffersSize(50000, 1)
addAction(QTypeRule(DNSQType.ANY), TCAction())
local blocks = dynBlockRulesGroup()
blocks:setQueryRate(3000, 5, "queries", 60)
blocks:setRCodeRate(DNSRCode.NXDOMAIN, 10, 5, "NXDOMAIN", 60)
blocks:setRCodeRatio(DNSRCode.NXDOMAIN, 0.9, 5, "mostly NXDOMAIN", 60, 20)
blocks:setSuffixMatchRule(5, "suffix", 60, DNSAction.Drop, function(node, own, below)
  return node.labelsCount > 2 and below.queries > 500 and below.nxdomains > 0.8 * below.queries
end)
function maintenance() blocks:apply() end
"""
PROXIES = ("dnscrub", "dnscrub-learned", "dnsdist-shield", "dnsdist")


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Lab:
    """the namespaces, and what runs in them"""

    def __init__(self, folder, realtime, nice):
        self.folder, self.realtime, self.nice, self.running = folder, realtime, nice, []

    def space(self, role):
        return f"mixed{os.getpid()}-{role}"

    def command(self, role, core, *command):
        first = ["chrt", "-f", "1"] if self.realtime else []
        return [*first, "nsenter", f"--net=/run/netns/{self.space(role)}", "taskset", "-c", core, *map(str, command)]

    def start(self, role, core, *command, log=None, environment=None):
        out = open(self.folder / log, "wb") if log else subprocess.PIPE
        process = subprocess.Popen(self.command(role, core, *command), stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=subprocess.STDOUT if log else None, env=environment,
                                   preexec_fn=die_with_parent)
        self.running.append(process)
        return process

    def stop(self, process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.remove(process)

    def ip(self, role, *arguments):
        subprocess.check_call(["ip", "-n", self.space(role), *arguments])

    def up(self):
        for role in ("client", "proxy", "server"):
            subprocess.check_call(["ip", "netns", "add", self.space(role)])
            self.ip(role, "link", "set", "lo", "up")
            subprocess.check_call(self.command(role, LOAD_CORE, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0",
                                               "net.ipv4.conf.default.rp_filter=0"))
        self.link("client", "c0", CLIENT, "proxy", "p0", PROXY)
        self.link("proxy", "p1", "198.18.1.1", "server", "s0", SERVER)
        self.ip("server", "addr", "add", f"{LIMITED}/24", "dev", "s0")
        self.ip("server", "route", "add", "198.18.0.0/24", "via", "198.18.1.1")
        # answers to made-up sources end at the client
        self.ip("proxy", "route", "add", MADE_UP_ALL, "via", CLIENT)
        self.ip("client", "route", "add", "blackhole", MADE_UP_ALL)
        time.sleep(0.3)
        # the receive work of each end on the core of its side
        for task in pathlib.Path("/proc").glob("[0-9]*/comm"):
            try:
                device = re.match(r"napi/([cps]\d)-", task.read_text())
            except OSError:
                continue
            if device:
                pid = task.parent.name
                core = PROXY_CORE if device[1][0] == "p" else LOAD_CORE
                subprocess.check_call(["taskset", "-pc", core, pid], stdout=subprocess.DEVNULL)
                if self.realtime:
                    subprocess.check_call(["chrt", "-f", "-p", "1", pid])
                elif self.nice:
                    subprocess.check_call(["renice", "-n", "-20", "-p", pid], stdout=subprocess.DEVNULL)

    def link(self, role, device, address, other, other_device, other_address):
        subprocess.check_call(["ip", "link", "add", device, "netns", self.space(role), "type", "veth",
                               "peer", "name", other_device, "netns", self.space(other)])
        for role, device, address in ((role, device, address), (other, other_device, other_address)):
            self.ip(role, "addr", "add", f"{address}/24", "dev", device)
            self.ip(role, "link", "set", device, "up")
            # so that packets are received by a thread of their own, not by whoever sends them
            shell = f"ethtool -K {device} gro on tso off; echo 1 >/sys/class/net/{device}/threaded"
            subprocess.check_call(["ip", "netns", "exec", self.space(role), "sh", "-c", shell])

    def hardware(self, role, device):
        return self.inside(role, f"/sys/class/net/{device}/address")

    def inside(self, role, path):
        # "ip netns exec" shows the namespace's own /sys
        return subprocess.check_output(["ip", "netns", "exec", self.space(role), "cat", path], text=True).strip()

    def down(self):
        for process in list(self.running):
            self.stop(process)
        for role in ("client", "proxy", "server"):
            subprocess.run(["ip", "netns", "del", self.space(role)], stderr=subprocess.DEVNULL)

    # -------------------------------------------------------------- servers

    def nsd(self, zones, more=""):
        """NSD with these zones as in its configuration file, and more lines about the server; who asks for a
        transfer is the proxy"""
        configuration = self.folder / "nsd.conf"
        configuration.write_text(f"""server:
  ip-address: {SERVER}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "{self.folder}"
  pidfile: "{self.folder}/nsd.pid"
  xfrdfile: "{self.folder}/xfrd.state"
  zonelistfile: "{self.folder}/zone.list"
  xfrdir: "{self.folder}"
  database: ""
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
{more}remote-control:
  control-enable: no
""" + "".join(f"zone:\n  name: {name}\n  zonefile: {file}\n  provide-xfr: 198.18.1.1 NOKEY\n" for name, file in zones))
        return self.start("server", LOAD_CORE, "nsd", "-d", "-c", configuration, log="nsd.log")

    def server(self):
        zone = [f"$ORIGIN {ZONE}.", "$TTL 3600", "@ SOA ns1 hostmaster 1 7200 3600 1209600 300", "@ NS ns1",
                f"ns1 A {SERVER}"]
        zone += [f"n{i:06d} A 192.0.2.{i % 254 + 1}" for i in range(NAMES)]
        (self.folder / "zone").write_text("\n".join(zone) + "\n")
        self.nsd([(ZONE, "zone")], "  receive-buffer-size: 4194304\n  send-buffer-size: 4194304\n")
        self.answering("server", SERVER)
        self.start("server", LOAD_CORE, self.folder / "traffic", "limit", LIMITED, SERVER, SERVER_CAN, log="limit.log")
        self.answering("server", LIMITED)

    def answering(self, role, address):
        """waits until an address answers for the zone's SOA record"""
        result = subprocess.run(self.command(role, LOAD_CORE, sys.executable, __file__, "--await", address))
        if result.returncode:
            sys.exit(f"{address} does not answer; see the logs in {self.folder}")

    def proxy(self, name, server):
        if name.startswith("dnsdist"):
            configuration = DNSDIST % {"proxy": PROXY, "server": server} + (SHIELD if "shield" in name else "")
            (self.folder / "dnsdist.conf").write_text(configuration)
            command = [os.environ.get("DNSDIST", "dnsdist"), "-C", self.folder / "dnsdist.conf", "--supervised",
                       "--disable-syslog"]
            environment = None
        else:
            command = ["bash", HERE / "adapter.sh", "start"]
            environment = dict(
                os.environ, BENCH_SCENARIO="shield", BENCH_LISTEN=PROXY, BENCH_BACKEND=server, BENCH_WORKERS="1",
                BENCH_DATA=str(self.folder), BENCH_WORK=str(self.folder), DNSCRUB_PRIMARY=SERVER,
                DNSCRUB_NAMES="learned" if name.endswith("learned") else "axfr")
        process = self.start("proxy", PROXY_CORE, *command, log=f"{name}.log", environment=environment)
        self.answering("client", PROXY)
        time.sleep(1)
        return process

    # -------------------------------------------------------------- a run

    def flood(self, case, seconds):
        suffix, first, sources, rate, _ = CASES[case]
        index = self.inside("client", "/sys/class/net/c0/ifindex")
        return self.start("client", LOAD_CORE, self.folder / "traffic", "flood", index, self.hardware("client", "c0"),
                          self.hardware("proxy", "p0"), PROXY, suffix, first, sources, rate, seconds)

    def measure(self, case, name, calm, flood, number):
        before = busy_cores()
        proxy = self.proxy(name, CASES[case][4])
        log = self.folder / f"{case}.{name}.{number}.queries"
        try:
            # without a calm time the flood is there first
            early = None if calm else self.flood(case, flood + 6)
            time.sleep(5 if early else 0)
            ask = self.start("client", LOAD_CORE, self.folder / "traffic", "ask", PROXY, ZONE, NAMES, RATE,
                             calm + flood, log)
            time.sleep(calm)
            attack = early or self.flood(case, flood)
            ask.communicate()
            sent = json.loads(attack.communicate()[0])["sent"]
            self.running.remove(ask)
            self.running.remove(attack)
            if proxy.poll() is not None:
                sys.exit(f"{name} ended; see {self.folder}/{name}.log")
        finally:
            self.stop(proxy)
        row = {"case": case, "proxy": name, "run": number, "calm": calm, "flood": flood, "others": before,
               "flood_pps": sent / (flood if calm else flood + 6)}
        row.update(evaluated(log, calm))
        return row


def busy_cores():
    """how many cores other work uses just now"""
    def ticks():
        return sum(map(int, pathlib.Path("/proc/stat").read_text().split()[1:4]))
    first = ticks()
    time.sleep(1)
    return (ticks() - first) / os.sysconf("SC_CLK_TCK")


def evaluated(log, calm):
    seconds = {}
    for line in log.read_text().splitlines():
        second, took, what = line.split()
        seconds.setdefault(int(second), []).append((int(took) / 1000, what))

    def share(queries, what):
        return sum(it[1] == what for it in queries) / len(queries) if queries else None

    def quantile(queries, part):
        took = sorted(it[0] for it in queries if it[1] == "ok")
        return took[min(len(took) - 1, int(len(took) * part))] if took else None

    def of(first, last):
        return [it for second, queries in seconds.items() if first <= second < last for it in queries]
    quiet, flooded, settled = of(2, calm), of(calm, 1000), of(calm + 3, 1000)
    return {
        "calm_p50": quantile(quiet, 0.5), "calm_answered": share(quiet, "ok"),
        "p50": quantile(flooded, 0.5), "p99": quantile(flooded, 0.99), "answered": share(flooded, "ok"),
        "truncated": share(flooded, "truncated"), "answered_from_3s": share(settled, "ok"),
        "seconds": [[second - calm, share(queries, "ok"), quantile(queries, 0.5)]
                    for second, queries in sorted(seconds.items())],
    }


# ---------------------------------------------------------------- what comes of it

def table(rows):
    print("| case | proxy | runs | calm median ms | flood median ms | p99 ms | answered % | TC=1 % | from 3rd second % "
          "| flood q/s | other cores |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case, name in dict.fromkeys((row["case"], row["proxy"]) for row in rows):
        group = [row for row in rows if (row["case"], row["proxy"]) == (case, name)]

        def median(key, digits, factor=1):
            values = [row[key] for row in group if row[key] is not None]
            return f"{statistics.median(values) * factor:.{digits}f}" if values else "-"
        print("|", " | ".join([
            f"`{case}`", name, str(len(group)), median("calm_p50", 2), median("p50", 2), median("p99", 1),
            median("answered", 2, 100), median("truncated", 2, 100), median("answered_from_3s", 2, 100),
            median("flood_pps", 0), median("others", 1)]), "|")


COLOURS = {"dnscrub": "#0a7d4f", "dnscrub-learned": "#3b6fd4", "dnsdist-shield": "#c0392b", "dnsdist": "#8e6b1f"}


def plot(case, rows, path):
    """two panels over time: answered %, and the median latency on a logarithmic scale"""
    firsts = {}
    for row in rows:
        if row["case"] == case:
            firsts.setdefault(row["proxy"], row)
    rows = list(firsts.values())
    first = min(it[0] for row in rows for it in row["seconds"])
    last = max(it[0] for row in rows for it in row["seconds"])
    width, height, left, top, between = 720, 150, 56, 46, 34

    def x(second):
        return left + (second - first) / max(1, last - first) * (width - left - 12)
    panels = [("answered %", [0, 25, 50, 75, 100], lambda v: v / 100, lambda it: it[1] * 100),
              ("median ms", [0.1, 1, 10, 100, 1000], lambda v: (math.log10(min(max(v, 0.1), 1000)) + 1) / 4,
               lambda it: it[2])]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + 2 * (height + between) + 4}" '
           'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="#fff"/>']
    for i, name in enumerate(row["proxy"] for row in rows):
        out.append(f'<text x="{left + i * 130}" y="16" fill="{COLOURS[name]}" font-weight="bold">{name}</text>')
    for number, (title, marks, scale, value) in enumerate(panels):
        base = top + number * (height + between) + height

        def y(v):
            return base - scale(v) * height
        out.append(f'<rect x="{x(max(0, first)):.0f}" y="{base - height}" width="{x(last) - x(max(0, first)):.0f}" '
                   f'height="{height}" fill="#f6eee9"/>')
        for mark in marks:
            out.append(f'<path d="M{left} {y(mark):.0f}H{width - 12}" stroke="#ccc" stroke-width=".5"/>'
                       f'<text x="{left - 6}" y="{y(mark) + 4:.0f}" text-anchor="end" fill="#555">{mark}</text>')
        out.append(f'<text x="{left}" y="{base - height - 5}" fill="#555">{title}</text>')
        for second in range(first + -first % 5, last + 1, 5):
            out.append(f'<text x="{x(second):.0f}" y="{base + 14}" text-anchor="middle" fill="#555">{second} s</text>')
        for row in rows:
            points = [(x(it[0]), y(value(it))) for it in row["seconds"] if value(it) is not None]
            line = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
            out.append(f'<path d="M{line}" fill="none" stroke="{COLOURS[row["proxy"]]}" stroke-width="1.8"/>')
    path.write_text("\n".join([*out, "</svg>"]) + "\n")


def wait_for(address):
    """runs inside a namespace: 0 once the address answers for the zone with records"""
    query = struct.pack("!6H", 0x4d58, 0, 1, 0, 0, 0) + b"\7example\4test\0" + struct.pack("!2H", 6, 1)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(0.1)
    for _ in range(200):
        try:
            client.sendto(query, (address, 53))
            answer = client.recv(2000)
        except OSError:
            time.sleep(0.05)
            continue
        if answer[:2] == query[:2] and answer[3] & 15 == 0 and answer[7]:
            return 0
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxy", nargs="*", help=f"of {', '.join(PROXIES)}; default: all")
    parser.add_argument("--only", default=".", metavar="REGEX", help=f"cases: {', '.join(CASES)}")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--calm", type=int, default=15, help="seconds before the flood; with 0 the flood is there 5 s before")
    parser.add_argument("--flood", type=int, default=20, help="seconds beside the flood")
    parser.add_argument("--realtime", action="store_true", help="put the bench before other work on the machine: first come, first served")
    parser.add_argument("--nice", action="store_true", help="the same with the usual scheduler: a fair share of turns")
    parser.add_argument("--out", default="mixed-results", type=pathlib.Path)
    parser.add_argument("--tables", action="store_true", help="only print and plot what is in --out")
    parser.add_argument("--await", dest="wait", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.wait:
        return wait_for(options.wait)
    proxies = options.proxy or PROXIES
    for name in proxies:
        if name not in PROXIES:
            parser.error(f"proxy: found {name}, expected one of {', '.join(PROXIES)}")
    cases = [case for case in CASES if re.search(options.only, case)]
    if not options.tables and os.geteuid():
        sys.exit("mixed.py makes network namespaces and sends raw packets: run it as root")
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    if not options.tables:
        needed = {"nsd": "nsd", "ip": "iproute2", "ethtool": "ethtool", "cc": "gcc", "chrt": "util-linux", "sysctl": "procps"}
        if any(name.startswith("dnsdist") for name in proxies):
            needed[os.environ.get("DNSDIST", "dnsdist")] = "dnsdist"
        missing = [f"{tool} (Debian package {package})" for tool, package in needed.items() if not shutil.which(tool)]
        if missing:
            sys.exit(f"not found: {', '.join(missing)}")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        subprocess.check_call(["cc", "-O2", "-Wall", "-o", folder / "traffic", HERE / "traffic.c"])
        lab = Lab(folder, options.realtime, options.nice)
        if options.nice:
            # the kernel weighs sessions, then what is in them
            if os.getsid(0) != os.getpid():
                os.setsid()
            pathlib.Path("/proc/self/autogroup").write_text("-20")
        try:
            lab.up()
            lab.server()
            with open(results, "a") as out:
                for case in cases:
                    for name in proxies:
                        for number in range(options.runs):
                            row = lab.measure(case, name, options.calm, options.flood, number)
                            out.write(json.dumps(row) + "\n")
                            out.flush()
                            print(f"{case} {name} #{number}: answered {row['answered']:.2%}, from the third second on "
                                  f"{row['answered_from_3s']:.2%}", file=sys.stderr, flush=True)
        finally:
            lab.down()
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    rows = [row for row in rows if row["case"] in cases and row["proxy"] in proxies]
    table(rows)
    for case in dict.fromkeys(row["case"] for row in rows):
        plot(case, rows, folder / f"{case}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
