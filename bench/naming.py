#!/usr/bin/env python3
"""Attacks named live: plays traces at a dnscrub in front of a real NSD, and watches its incidents.

    client 198.18.0.1 ---- 198.18.0.2  dnscrub  198.18.1.1 ---- 198.18.1.2  NSD, the trace's zones

Three network namespaces joined by veth pairs (those of mixed.py); nothing leaves them, and every load ends by
itself. A trace is a folder with trace.ndjson, meta.json and zones/, as the scrubbing-quality generator writes
them. It is played at its own times with its own (forged) sources and hop counts. IPv6 sources become IPv4 ones,
since the lab has IPv4 only; queries over TCP and conditional retries are left out.

What is printed and what counts as a miss is as in incidents.py, which puts the same traces through a replay.

usage: naming.py [--blind] [--out FOLDER] TRACE...

Needs root and the Debian packages nsd, iproute2, ethtool, gcc, util-linux.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import mixed
from incidents import CLOSED_WITHIN, judge

HERE = pathlib.Path(__file__).resolve().parent


class Lab(mixed.Lab):
    """the namespaces, with the zones of a trace and made-up sources from everywhere"""

    def up(self):
        super().up()
        self.ip("proxy", "route", "add", "default", "via", mixed.CLIENT)
        self.ip("client", "route", "add", "blackhole", "default")

    def serve(self, trace):
        return self.nsd((file.stem, file) for file in sorted((trace / "zones").glob("*.zone")))

    def scrub(self, binary, trace, blind):
        socket = self.folder / "control.sock"
        names = [file.stem for file in sorted((trace / "zones").glob("*.zone"))]
        zones = "" if blind else "zones:\n" + "".join(
            f'  - {{ name: {name}, names: {{ axfr: "{mixed.SERVER}:53" }} }}\n' for name in names)
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        configuration = self.folder / "dnscrub.yaml"
        configuration.write_text(f"""workers: 1
listen: [ {{ address: "{mixed.PROXY}:53" }} ]
pools:
  default:
    upstreams: [ {{ address: "{mixed.SERVER}:53" }} ]
    health: {{ query: "{names[0]}. SOA" }}
control: {{ socket: "{socket}" }}
state: {{ folder: "{self.folder}/state" }}
{zones}""")
        process = self.start("proxy", mixed.PROXY_CORE, binary, "run", "--config", configuration, log="dnscrub.log")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            ready = json.loads(ask(binary, socket, "zones") or "null")
            if ready is not None and all(zone["state"] == "fresh" for zone in ready if not blind):
                return process, socket
            time.sleep(0.2)
        sys.exit(f"dnscrub does not get ready; see {self.folder}/dnscrub.log")


def ask(binary, socket, *command):
    done = subprocess.run([binary, *command, "--json", "--socket", socket], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def as_ipv4(source):
    """an IPv4 source as it is; an IPv6 one as an address whose /24 stands for its /48"""
    if ":" not in source:
        return bytes(map(int, source.split(".")))
    network, host = ":".join(source.split(":")[:3]), source
    bits = zlib.crc32(network.encode())
    return bytes((64 + bits % 60, bits >> 8 & 255, bits >> 16 & 255, zlib.crc32(host.encode()) % 254 + 1))


def packed(trace, path):
    """the trace as `traffic play` reads it; how long it is, in seconds"""
    last, left_out = 0, 0
    with open(trace / "trace.ndjson") as lines, open(path, "wb") as out:
        for line in lines:
            record = json.loads(line)
            query = bytes.fromhex(record["q"])
            if record["proto"] != "udp" or record["att"] or len(query) > 4096:
                left_out += 1
                continue
            last = record["t"]
            out.write(struct.pack("=Q4sHHI", int(last * 1e9), as_ipv4(record["src"]), record["sport"], record["ttl"],
                                  len(query)) + query)
    return last, left_out


def play(lab, binary, trace, blind):
    file = lab.folder / "packets"
    length, left_out = packed(trace, file)
    nsd = lab.serve(trace)
    process, socket = lab.scrub(binary, trace, blind)
    try:
        index = lab.inside("client", "/sys/class/net/c0/ifindex")
        traffic = lab.start("client", mixed.LOAD_CORE, lab.folder / "traffic", "play", index,
                            lab.hardware("client", "c0"), lab.hardware("proxy", "p0"), mixed.PROXY, file)
        # "play" begins a tenth of a second after its start
        began = time.time() + 0.1
        sent = json.loads(traffic.communicate()[0])
        lab.running.remove(traffic)
        # what is over goes on being closed; without any traffic as well
        ends = [attack[1]["end"] for attack in json.loads((trace / "meta.json").read_text())["attacks"]]
        deadline = began + max([length, *(end + CLOSED_WITHIN for end in ends)]) + 2
        while time.time() < deadline:
            incidents = json.loads(ask(binary, socket, "incidents", "list") or "[]")
            if time.time() > began + length and all(it["closed"] for it in incidents):
                break
            time.sleep(1)
        incidents = [json.loads(ask(binary, socket, "incidents", "show", str(it["number"])))
                     for it in json.loads(ask(binary, socket, "incidents", "list") or "[]")]
    finally:
        lab.stop(process)
        lab.stop(nsd)
        file.unlink()
    for incident in incidents:
        for field in ("began", "opened", "closed"):
            if incident[field] is not None:
                incident[field] -= began
        for entry in incident["timeline"]:
            entry["at"] -= began
    return incidents, {**sent, "left_out": left_out}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="+", type=pathlib.Path)
    parser.add_argument("--blind", action="store_true", help="without the zones: names are learned from answers")
    parser.add_argument("--binary", default=HERE.parent / "target/release/dnscrub", type=pathlib.Path)
    parser.add_argument("--out", default="naming-results", type=pathlib.Path)
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("naming.py makes network namespaces and sends raw packets: run it as root")
    needed = {"nsd": "nsd", "ip": "iproute2", "ethtool": "ethtool", "cc": "gcc", "sysctl": "procps"}
    missing = [f"{tool} (Debian package {package})" for tool, package in needed.items() if not shutil.which(tool)]
    if missing:
        sys.exit(f"not found: {', '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.check_call(["cc", "-O2", "-Wall", "-o", folder / "traffic", HERE / "traffic.c"])
    lab, wrong = Lab(folder, False, False), 0
    try:
        lab.up()
        for trace in options.trace:
            trace = trace.resolve()
            incidents, sent = play(lab, options.binary.resolve(), trace, options.blind)
            (folder / f"{trace.name}{'.blind' if options.blind else ''}.json").write_text(json.dumps(incidents, indent=1))
            lines, good = judge(trace, incidents, {})
            wrong += not good
            print(f"{trace.name}: {sent}")
            for fine, family, kind, text in lines:
                print(f"{'ok   ' if fine else 'MISS '} {family:15} {kind:18} {text}", flush=True)
    finally:
        lab.down()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
