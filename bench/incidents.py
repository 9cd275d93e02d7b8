#!/usr/bin/env python3
"""Replays a folder of generated scenarios and says which incidents dnscrub noticed in each, and when.

    bench/incidents.py FOLDER target/release/dnscrub [--blind] [--only NAME,NAME] [--jobs 2] [--kind FAMILY=KIND]...

FOLDER holds scenarios of the scrubbing-quality generator: a folder each, with trace.ndjson, zones/ and
meta.json, whose attacks and their times are what the incidents are compared with. A scenario's name is its
folder's up to the last '-'. What is expected for a family of attacks that is not known here is said by
--kind, or by "kinds" in meta.json, as {"FAMILY": "KIND"}; harmless is what has the kind "none" or one that is
no attack, which may be named and need not be. Prints a line for each attack, and one for each incident that nobody asked for;
exits with 1 if an attack was missed, named wrongly, named later than 10 s after its start, or not closed
within 60 s after its end, or if something that is no attack was called one. What a trace does not show,
since it ends too early, counts neither way.
"""
import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile

KINDS = {
    "rand_spoof": "random-subdomains",
    "rand_resolvers": "random-subdomains",
    "dict_resolvers": "random-subdomains",
    "nx_multizone": "random-subdomains",
    "low_slow": "random-subdomains",
    "direct_fixed": "direct-flood",
    "amp": "reflection",
    "spoof_allow": "spoofed-resolvers",
    "carpet": "spoofed-carpet",
    "pulse": "pulse",
    "malformed": "malformed-flood",
}
HARMLESS = {"flash": "flash-crowd", "mxburst": "none", "newnames": "none"}
NO_ATTACK = {"query-loop", "flash-crowd", "upstream-failure"}
ATTACK = set(KINDS.values()) | {"tcp-exhaustion"}
NAMED_WITHIN, CLOSED_WITHIN = 10, 60


def named(incident, kind):
    """When the incident had this kind first, or nothing."""
    if incident["kind"] == kind and kind != "pulse":
        return incident["opened"]
    if incident["kind"] == "pulse" and kind == "pulse" and incident.get("of") == "random-subdomains":
        turns = [e["at"] for e in incident["timeline"] if e["what"] == "renamed" and "ulsing" in e["text"]]
        return turns[0] if turns else incident["opened"]
    return None


def judge(folder, incidents, kinds):
    """Lines of a scenario and whether all is well."""
    meta = json.load(open(os.path.join(folder, "meta.json")))
    zones = [zone["origin"] for zone in meta["zones"]]
    duration = meta["args"]["duration"]
    kinds = {**KINDS, **HARMLESS, **meta.get("kinds", {}), **kinds}
    free, lines, good = list(incidents), [], True
    for family, parameters in meta["attacks"]:
        start, end = parameters["start"], min(parameters["end"], duration)
        kind = kinds.get(family)
        if kind == "none":
            continue
        if kind in NO_ATTACK:
            crowd = [i for i in free if i["kind"] == kind and i["opened"] >= start]
            free = [i for i in free if i not in crowd]
            when = f"named after {crowd[0]['opened'] - start:.0f} s" if crowd else "not named (need not be)"
            lines.append((True, family, kind, when))
            continue
        if kind not in ATTACK:
            lines.append((False, family, "-", f"unknown family: say what it is, with --kind {family}=KIND"))
            good = False
            continue
        wanted = zones[int(parameters["zone"])] if "zone" in parameters else None
        fitting = [
            i for i in free
            if named(i, kind) is not None and i["opened"] <= end + 5
            and (i["closed"] is None or i["closed"] >= start)
            and (wanted is None or not i["zones"] or wanted in [z["zone"] for z in i["zones"][:1]])
        ]
        if not fitting:
            # one that is going on from an attack of the same kind
            lines.append((False, family, kind, "MISSED"))
            good = False
            continue
        incident = min(fitting, key=lambda i: named(i, kind))
        free.remove(incident)
        after = named(incident, kind) - start
        closed = incident["closed"]
        # a pulse shows with the second one
        late = after > NAMED_WITHIN + (parameters.get("period", 8) if kind == "pulse" else 0)
        late |= incident["opened"] - start > NAMED_WITHIN
        if closed is not None:
            close = f"closed after {closed - end:.0f} s"
            slow = closed - end > CLOSED_WITHIN or closed < end - 5
        else:
            close = f"open at the end, {duration - end:.0f} s after"
            slow = duration - end > CLOSED_WITHIN
        where = ", ".join(z["zone"] for z in incident["zones"][:3]) or "no zone in particular"
        more = len(incident["zones"]) + incident.get("more_zones", 0) - 3
        where += f" and {more} more" if more > 0 else ""
        off = wanted is not None and wanted not in [z["zone"] for z in incident["zones"]]
        bad = late or slow or off
        good &= not bad
        lines.append((not bad, family, kind, f"named after {after:.1f} s, {close}; {where}"))
    for incident in free:
        attack = incident["kind"] not in NO_ATTACK
        good &= not attack
        closed = incident["closed"]
        until = f"{closed:.0f}" if closed is not None else "the end"
        lines.append((not attack, "-", incident["kind"], f"{'FALSE ' if attack else ''}from {incident['opened']:.0f} to {until}: {incident['sentence']}"))
    return lines, good


def run(folder, binary, blind, kinds):
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        command = [binary, "replay", "--suite", folder, "--incidents", file.name]
        done = subprocess.run(command + ["--blind"] * blind, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            return [(False, "-", "-", f"FAILED: {done.stderr.strip()}")], False
        incidents = [json.loads(line) for line in open(file.name)]
    return judge(folder, incidents, kinds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("binary")
    parser.add_argument("--blind", action="store_true", help="without the zones' names")
    parser.add_argument("--only", default="", help="scenarios, parted by commas")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kind", action="append", default=[], metavar="FAMILY=KIND", help="what a family is")
    options = parser.parse_args()
    kinds = {}
    for text in options.kind:
        family, _, kind = text.partition("=")
        if kind not in ATTACK | NO_ATTACK | {"none"}:
            parser.error(f"--kind {text}: expected FAMILY=KIND, with KIND one of {', '.join(sorted(ATTACK | NO_ATTACK))}, none")
        kinds[family] = kind
    only = set(filter(None, options.only.split(",")))
    folders = sorted(
        entry.path for entry in os.scandir(options.folder)
        if os.path.exists(os.path.join(entry.path, "meta.json"))
        and (not only or entry.name.rsplit("-", 1)[0] in only or entry.name in only)
    )
    if not folders:
        sys.exit(f"no scenario in {options.folder}: expected folders with trace.ndjson and meta.json")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda folder: run(folder, options.binary, options.blind, kinds), folders))
    bad = 0
    for folder, (lines, good) in zip(folders, results):
        bad += not good
        name = os.path.basename(folder)
        if not lines:
            print(f"ok    {name:20} nothing noticed, nothing to notice")
        for fine, family, kind, text in lines:
            print(f"{'ok   ' if fine else 'MISS '} {name:20} {family:15} {kind:18} {text}")
    print(f"{len(folders) - bad} of {len(folders)} scenarios as they should be{' (blind)' if options.blind else ''}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
