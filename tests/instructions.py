#!/usr/bin/env python3
"""Counts the instructions of the hot paths and compares them with the last ones landed, in instructions.json beside this.

    instructions.py compare     fails if a benchmark takes more instructions than the tolerance allows, if one is not in
                                the file, or if one in the file did not run
    instructions.py accept      writes what was counted into the file

`make instructions` and `make instructions-accept` call it: it needs gungraun-runner on the PATH, Valgrind and cargo. What
each benchmark does is in storage/benches and raft/benches; what is compared with what, in docs/src/instructions.md.

Exit code: 0 nothing takes more; 1 something does, or the two lists differ; 69 something that is needed is missing or the
counts are of another kind of machine; otherwise that of cargo.
"""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
LANDED = HERE / "instructions.json"

# Of the last count, in percent. Runs of the same build differ by up to 0.3 %; the rest is for changes elsewhere that
# move what the compiler inlines.
TOLERANCE = 3.0

# The whole workspace, as the tests select it, and their profile: with another selection or profile cargo would
# compile RocksDB a second time.
BENCHMARKS = ["cargo", "bench", "--locked", "--workspace", "--profile", "dev", "--bench", "instructions"]
# As CI builds. An incremental build divides our crates into other pieces, and the compiler inlines within a piece:
# that alone makes some counts half as large again.
BUILT_ANEW = {"CARGO_INCREMENTAL": "0"}


class Missing(Exception):
    """Something that the count needs is not on this machine."""


def main(arguments):
    if arguments not in (["compare"], ["accept"]):
        print("usage: instructions.py compare|accept", file=sys.stderr)
        return 64
    try:
        tools = tools_here()
        landed = read_landed()
        if arguments == ["compare"]:
            check_machine(landed["counted with"], tools)
        counts = count()
    except Missing as missing:
        print(f"instructions: {missing}", file=sys.stderr)
        return 69
    except subprocess.CalledProcessError as failed:
        print(f"instructions: {' '.join(BENCHMARKS)} failed with status {failed.returncode}", file=sys.stderr)
        return failed.returncode
    if arguments == ["accept"]:
        accept(landed["instructions"], counts, tools)
        return 0
    return compare(landed, counts, tools)


# ---- counting


def tools_here():
    """What decides over the counts beside the code: a count of other tools is another count."""
    for program, where in [
        ("valgrind", "apt-get install valgrind"),
        ("gungraun-runner", "make instructions installs it"),
        ("cargo", "install Rust with rustup"),
    ]:
        if shutil.which(program) is None:
            raise Missing(f"{program} is missing: {where}")
    return {
        "machine": platform.machine(),
        "rustc": output_of("rustc", "--version"),
        "c++": output_of("c++", "--version"),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": output_of("valgrind", "--version"),
    }


def output_of(*command):
    try:
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return printed.splitlines()[0].strip() if printed else "none"


def count():
    """The count of each benchmark by its name."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parent / "target")
    profiles = target / "instructions"
    # Else the runner compares with the run before, which nobody asked it to.
    shutil.rmtree(profiles, ignore_errors=True)
    run = subprocess.run(
        [*BENCHMARKS, "--", "--output-format=json", f"--home={profiles}"],
        cwd=HERE.parent,
        env=os.environ | BUILT_ANEW,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    counts = dict(map(counted, summaries(run.stdout)))
    print(f"instructions: profiles for callgrind_annotate are in {profiles}")
    return dict(sorted(counts.items()))


def summaries(text):
    """The JSON objects in the output of several benchmark programs."""
    decoder, at = json.JSONDecoder(), 0
    while (start := text.find("{", at)) >= 0:
        summary, at = decoder.raw_decode(text, start)
        yield summary


def counted(summary):
    """Name and count of one benchmark."""
    package = pathlib.PurePath(summary["package_dir"]).name
    name = "/".join([package, summary["function_name"], summary["id"]])
    (callgrind,) = summary["profiles"]
    return name, callgrind["data"]["total"]["metrics"]["Ir"]["values"]["new"]


# ---- the file


def read_landed():
    if not LANDED.exists():
        return {"counted with": {}, "instructions": {}}
    return json.loads(LANDED.read_text())


def accept(last, counts, tools):
    LANDED.write_text(json.dumps({"counted with": tools, "instructions": counts}, indent=2) + "\n")
    print_table(rows(last, counts))
    print(f"instructions: wrote {LANDED.relative_to(HERE.parent)}; commit it with the change, and say there why")


# ---- comparing


def check_machine(last, now):
    if last and last["machine"] != now["machine"]:
        raise Missing(
            f"the counts in {LANDED.name} are of {last['machine']}, and this is {now['machine']}: nothing to compare with"
        )


def compare(landed, counts, tools):
    compared = rows(landed["instructions"], counts)
    print_table(compared)
    more = [name for name, last, now in compared if last and now and change(last, now) > TOLERANCE]
    fewer = [name for name, last, now in compared if last and now and change(last, now) < -TOLERANCE]
    new = [name for name, last, _ in compared if last is None]
    # A benchmark whose function is not found counts nothing, and would for ever.
    empty = [name for name, _, now in compared if now == 0]
    gone = [name for name, _, now in compared if now is None]
    for names, what in [
        (more, f"more instructions than landed by over {TOLERANCE:g} %"),
        (empty, "counted nothing: is the function that it waits for still called that?"),
        (new, f"not in {LANDED.name}"),
        (gone, f"in {LANDED.name}, and did not run"),
    ]:
        if names:
            print(f"instructions: {what}: {', '.join(names)}")
    if fewer:
        print(f"instructions: fewer than landed by over {TOLERANCE:g} %: {', '.join(fewer)}")
    failed = bool(more or empty or new or gone)
    if failed:
        say_other_tools(landed["counted with"], tools)
    if failed or fewer:
        print("instructions: if that is meant, accept with make instructions-accept, and commit tests/instructions.json")
    return 1 if failed else 0


def say_other_tools(last, now):
    """A new compiler changes all counts a little, and is then the reason to accept them."""
    for tool, version in now.items():
        if last.get(tool, version) != version:
            print(f"instructions: the last ones were counted with {last[tool]}, these with {version}")


def rows(last, now):
    names = sorted(last.keys() | now.keys())
    return [(name, last.get(name), now.get(name)) for name in names]


def change(last, now):
    return (now - last) / last * 100


def print_table(compared):
    width = max([len("benchmark"), *(len(name) for name, _, _ in compared)])
    print(f"{'benchmark':{width}}  {'last':>14}  {'now':>14}  {'change':>9}")
    for name, last, now in compared:
        changed = f"{change(last, now):+.2f} %" if last and now is not None else ""
        print(f"{name:{width}}  {number(last):>14}  {number(now):>14}  {changed:>9}")


def number(count):
    return "-" if count is None else f"{count:,}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
