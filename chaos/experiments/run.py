#!/usr/bin/env python3
"""Runs the experiments of this folder, each against a fresh cluster of three on this machine.

    run.py [NAME...]        all of them, or those named (kill-leader, ...); all of them include must-fail/*, each of
                            which passes if its steady state is found to be gone

TERCET_BIN is the registry under test. With TERCET_CHAOS, the program tercet-chaos, it is asked too: `verify` with a ledger
of its own, before and after each experiment. Wants the Python that chaos/setup.sh has made, which has Chaos Toolkit.

Exit code: 0 all held; 1 one did not, or did not run to its end.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
START_SECONDS = 120
GONE = "the steady state was not there after the fault"
EXPERIMENT_SECONDS = 600


def free_port():
    """A first port such that all of `tercet dev` are free, below the range of outgoing connections."""
    for _ in range(200):
        first = random.randrange(15000, 30000, 40)
        sockets = []
        try:
            for port in (first + 10 * replica + offset for replica in range(3) for offset in range(4)):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            continue
        finally:
            for held in sockets:
                held.close()
    raise SystemExit("no free ports between 15000 and 30000")


class Cluster:
    """`tercet dev` in a folder of its own, and whatever the experiment started beside it."""

    def __init__(self, program, folder):
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TERCET_")}
        self.log = open(folder.with_suffix(".log"), "wb")
        self.dev = subprocess.Popen(
            [program, "dev", "--replicas", "3", "--dir", str(folder), "--port", str(free_port())],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=kept, start_new_session=True,
        )

    def wait_until_ready(self):
        end = time.monotonic() + START_SECONDS
        while not (self.folder / "cluster.json").exists():
            if self.dev.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the cluster did not start:\n" + self.log_tail())
            time.sleep(0.2)

    def log_tail(self):
        return self.folder.with_suffix(".log").read_text(errors="replace")[-2000:]

    def stop(self):
        """By process ids that are known to be ours; what a fault has paused is killed."""
        import local_cluster

        if self.dev.poll() is None:
            local_cluster.resume()
            self.dev.terminate()
            try:
                self.dev.wait(60)
            except subprocess.TimeoutExpired:
                self.dev.kill()
                self.dev.wait()
        for replica in local_cluster.replicas():
            if local_cluster.runs(replica):
                os.kill(replica["pid"], signal.SIGKILL)
        self.log.close()


def verify(folder, cluster, more, experiment):
    """What tercet-chaos says of the cluster; None without TERCET_CHAOS, and where all is lost: it would wait for each."""
    program = os.environ.get("TERCET_CHAOS")
    if not program or experiment.parent.name == "must-fail":
        return None
    targets = ",".join(f"http://{replica['registry']}" for replica in cluster)
    return subprocess.run(
        [program, "verify", "--target", targets, "--ledger", str(folder / "verify-ledger"), *more],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=EXPERIMENT_SECONDS, check=False,
    )


def problems(journal):
    """Why this run of an experiment is not a success."""
    if journal.get("status") != "completed":
        yield f"its status is {journal.get('status')}"
    if journal.get("deviated"):
        yield "the steady state was not there any more"
    steady = journal.get("steady_states") or {}
    done = (journal.get("run") or []) + (journal.get("rollbacks") or [])
    for when, broken in [("before", "the steady state was not there before the fault"), ("after", GONE)]:
        state = steady.get(when) or {}
        done += state.get("probes", [])
        if not state.get("steady_state_met"):
            yield broken
    for activity in done:
        if activity["status"] != "succeeded":
            yield f"{activity['activity']['name']}: {' '.join(activity.get('exception') or [activity['status']]).strip()}"


def run(experiment, program, folder):
    """The reasons why it failed; none if all held."""
    import local_cluster

    os.environ.update(EXPERIMENT_DIR=str(folder), EXPERIMENT_PROGRAM=program)
    cluster = Cluster(program, folder)
    try:
        cluster.wait_until_ready()
        local_cluster.work(3, "before")
        before = verify(folder, local_cluster.replicas(), [], experiment)
        if before is not None and before.returncode != 0:
            return [f"verify before ended with {before.returncode}: {before.stdout}{before.stderr}"]
        journal = folder / "journal.json"
        done = subprocess.run(
            [sys.executable, "-m", "chaostoolkit", "--no-version-check", "--settings", str(folder / "settings.yaml"),
             "--log-file", str(folder / "chaostoolkit.log"), "run", "--journal-path", str(journal), str(experiment)],
            env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=EXPERIMENT_SECONDS, check=False,
        )
        if not journal.exists():
            return [f"Chaos Toolkit ended with {done.returncode} and left no journal:\n{done.stdout}{done.stderr}"]
        found = list(problems(json.loads(journal.read_text())))
        after = verify(folder, local_cluster.replicas(), ["--strict"], experiment)
        if after is not None and after.returncode != 0:
            found.append(f"verify after ended with {after.returncode}: {after.stdout}{after.stderr}")
        return found
    except Exception as error:  # a failure of one experiment, and the others still run
        return [f"{type(error).__name__}: {error}"]
    finally:
        cluster.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="an experiment; all without any")
    names = parser.parse_args().names
    known = {path.stem: path for path in sorted(HERE.glob("*.yaml")) + sorted(HERE.glob("must-fail/*.yaml"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no such experiment: {', '.join(unknown)}; there are {', '.join(known)}")
    program = os.environ.get("TERCET_BIN")
    if not program or not shutil.which(program):
        parser.error("TERCET_BIN does not name the registry's program")
    passed = failed = 0
    for name in names or known:
        began = time.monotonic()
        work = pathlib.Path(tempfile.mkdtemp(prefix=f"tercet-experiment-{name}-"))
        must_fail = known[name].parent.name == "must-fail"
        # What is gone for good need not be waited for.
        os.environ["EXPERIMENT_PATIENCE"] = "10" if must_fail else "90"
        found = run(known[name], program, work / "cluster")
        if must_fail:
            found = [] if GONE in found else ["nobody noticed what it broke", *found]
        seconds = time.monotonic() - began
        if found:
            failed += 1
            print(f"{name}: FAILED after {seconds:.0f} s; everything is kept in {work}")
            for problem in found:
                print(f"  {problem}")
        else:
            passed += 1
            print(f"{name}: {'noticed' if must_fail else 'held'}, {seconds:.0f} s", flush=True)
            shutil.rmtree(work, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(HERE))
    # So that a run which is ended stops its cluster.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
