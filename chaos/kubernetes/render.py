#!/usr/bin/env python3
"""Makes the Schedules and Workflows of Chaos Mesh out of the experiments, so that a fault is described once.

    render.py            writes chaos-mesh/schedules and chaos-mesh/workflows
    render.py --check    writes nothing; exit code 1 if a file is not what it would write

Text is put together, not YAML, so that the comments which mark parameters come along.
"""

import argparse
import pathlib
import re
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent / "chaos-mesh"

# The order of a GameDay, from harmless to hard, and the hour of each in a week: in working hours, never two at a time.
# Cron takes either of day of month and day of week where both are given, so only the day of the week is.
ORDER = [
    ("clock-jump", "0 10 * * 1"),
    ("slow-link", "0 13 * * 1"),
    ("kill-one", "0 15 * * 1"),
    ("stop-one", "0 10 * * 2"),
    ("lossy-link", "0 13 * * 2"),
    ("corrupt-link", "0 15 * * 2"),
    ("partition-one", "0 10 * * 3"),
    ("one-way", "0 13 * * 3"),
    ("slow-disk", "0 15 * * 3"),
    ("disk-errors", "0 10 * * 4"),
    ("little-memory", "0 13 * * 4"),
    ("kill-all", "0 15 * * 4"),
]

# The key of an experiment inside a Schedule or a template of a Workflow.
EMBEDDED = {
    "PodChaos": "podChaos",
    "NetworkChaos": "networkChaos",
    "IOChaos": "ioChaos",
    "TimeChaos": "timeChaos",
    "StressChaos": "stressChaos",
}

SCHEDULE = """\
# {name}, again and again. Made by render.py from experiments/{name}.yaml: change that one.
#
# Comes paused. To let it run, when the people who answer for the cluster know of it:
#   kubectl annotate --overwrite --namespace tercet schedule {name} experiment.chaos-mesh.org/pause=false
# Rollback: kubectl delete --namespace tercet schedule {name}
apiVersion: chaos-mesh.org/v1alpha1
kind: Schedule
metadata:
  name: {name}
  namespace: tercet # PARAMETER: where Tercet runs
  labels:
    app.kubernetes.io/part-of: tercet-chaos
  annotations:
    tercet-scenario: {scenario}
    experiment.chaos-mesh.org/pause: 'true'
spec:
  schedule: '{cron}' # PARAMETER: when, by the clock of Chaos Mesh's controller
  type: {kind}
  historyLimit: 5
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 60
  {key}:
{spec}"""

VERIFY = """\
    - name: {step}
      templateType: Task
      deadline: 15m
      task:
        container:
          name: verify
          image: tercet-chaos:PARAMETER # PARAMETER: an image with the tercet-chaos program
          command:
            - tercet-chaos
            - verify
            - --target
            # PARAMETER: every replica by its own name, not the service
            - http://tercet-0.tercet-peers.tercet.svc:5000,http://tercet-1.tercet-peers.tercet.svc:5000,http://tercet-2.tercet-peers.tercet.svc:5000
            - --ledger
            - /ledger
            - --report
            - /ledger/reports/{name}-{step}
{more}          volumeMounts:
            - name: ledger
              mountPath: /ledger
        volumes:
          - name: ledger
            persistentVolumeClaim:
              claimName: tercet-chaos-ledger
"""

BRANCHES = """\
      conditionalBranches:
        - target: {next}
          expression: exitCode == 0
        - target: violated
          expression: exitCode == 1
        - target: inconclusive
          expression: exitCode > 1
"""

WORKFLOW = """\
# {name}: verify, fault, check, heal, verify. Made by render.py from experiments/{name}.yaml: change that one.
#
# Needs the volume claim in ledger.yaml and an image with tercet-chaos. The verdict is the last node: held, violated or
# inconclusive. If the first verify does not hold there is no fault at all.
# Rollback: kubectl delete --namespace tercet workflow {name}
apiVersion: chaos-mesh.org/v1alpha1
kind: Workflow
metadata:
  name: {name}
  namespace: tercet # PARAMETER: where Tercet runs
  labels:
    app.kubernetes.io/part-of: tercet-chaos
  annotations:
    tercet-scenario: {scenario}
spec:
  entry: verify-before
  templates:
{verify_before}    - name: experiment
      templateType: Serial
      deadline: 60m
      children: [fault-and-check, heal, verify-after]
    - name: fault-and-check
      templateType: Parallel
      deadline: 20m
      children: [fault, watch, check]
    - name: fault
      templateType: {kind}
      deadline: {deadline}
      {key}:
{spec}    # The abort condition: no answer through the service for {patience}.
    - name: watch
      templateType: StatusCheck
      deadline: {watched}
      abortWithStatusCheck: true
      statusCheck:
        mode: Continuous
        type: HTTP
        intervalSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {failures}
        http:
          url: http://tercet.tercet.svc:5000/v2/ # PARAMETER: the service that clients use
          method: GET
          criteria:
            statusCode: 200-401
    - name: check
      templateType: Serial
      deadline: 20m
      children: [let-it-bite, verify-during]
    - name: let-it-bite
      templateType: Suspend
      deadline: 20s
{verify_during}    # The fault has ended; repair has this long. PARAMETER: as long as filling one replica takes.
    - name: heal
      templateType: Suspend
      deadline: 3m
{verify_after}    - name: held
      templateType: Suspend
      deadline: 1s
    - name: violated
      templateType: Suspend
      deadline: 1s
    - name: inconclusive
      templateType: Suspend
      deadline: 1s
"""


def field(text, pattern, path):
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise SystemExit(f"{path}: nothing matches {pattern!r}")
    return found.group(1)


def rendered():
    """Path and text of every file that is made."""
    for name, cron in ORDER:
        path = HERE / "experiments" / f"{name}.yaml"
        text = path.read_text()
        kind = field(text, r"^kind: (\w+)$", path)
        scenario = field(text, r"^    tercet-scenario: (\S+)$", path)
        spec = textwrap.dedent(text.split("\nspec:\n", 1)[1])
        # A Workflow ends its faults by the deadline of their template and takes no duration.
        duration = re.search(r"^duration: (\S+)\n", spec, re.MULTILINE)
        lasting = duration.group(1) if duration else "30s"
        endless = spec.replace(duration.group(0), "", 1) if duration else spec
        common = {"name": name, "kind": kind, "key": EMBEDDED[kind], "scenario": scenario}
        yield HERE / "schedules" / f"{name}.yaml", SCHEDULE.format(
            cron=cron, spec=textwrap.indent(spec, " " * 4), **common
        )
        # While the fault lasts the others have to give everything; before and after it every replica has to.
        more = {
            "verify-before": "            - --strict\n",
            "verify-during": "            - --check-only\n",
            "verify-after": "            - --strict\n",
        }
        verify = {step: VERIFY.format(name=name, step=step, more=flags) for step, flags in more.items()}
        yield HERE / "workflows" / f"{name}.yaml", WORKFLOW.format(
            verify_before=verify["verify-before"] + BRANCHES.format(next="experiment"),
            verify_during=verify["verify-during"],
            verify_after=verify["verify-after"] + BRANCHES.format(next="held"),
            deadline=lasting,
            # A kill is over at once, what it does is not.
            watched=lasting if duration else "5m",
            # When all were killed, nobody answers for as long as a start takes.
            failures=48 if name == "kill-all" else 6,
            patience="four minutes" if name == "kill-all" else "half a minute",
            spec=textwrap.indent(endless, " " * 8),
            **common,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file is not up to date")
    check = parser.parse_args().check
    stale = []
    for path, text in rendered():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path)
        if not check:
            path.write_text(text)
    for path in stale:
        print(("not what render.py makes: " if check else "wrote ") + str(path))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
