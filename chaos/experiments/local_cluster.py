"""What the experiments in this folder ask of a local cluster of `tercet dev`, and what they do to it.

run.py names the cluster's folder in EXPERIMENT_DIR. Chaos Toolkit calls the functions below; each either returns what it
found, or raises what is wrong. Only HTTP and process ids are used, nothing of the registry's own code.
"""

import hashlib
import http.client
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from chaoslib.exceptions import ActivityFailed

REPOSITORY = "experiment/images"
TAG = "newest"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# How long a condition may take to come true before it counts as broken. Machines of CI are slow.
PATIENCE_SECONDS = int(os.environ.get("EXPERIMENT_PATIENCE", "90"))
# A pull that may ask every replica must succeed within this, and so must a push while a majority is up.
CLIENT_SECONDS = 20
REQUEST_SECONDS = 5
# The ledger and the tag have one writer at a time. Work in the background goes before what comes after it.
ONE_WRITER = threading.Lock()
# The images of `work`, in this process.
DONE = []


# ---- the cluster


def folder():
    return pathlib.Path(os.environ["EXPERIMENT_DIR"])


def read_json(name, default):
    path = folder() / name
    return json.loads(path.read_text()) if path.exists() else default


def write_json(name, value):
    """Whole or not at all: the experiment may be ended at any moment."""
    path = folder() / name
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(value))
    beside.replace(path)


def replicas():
    """Each replica with the process that it has now."""
    started = read_json("started.json", {})
    return [{**replica, "pid": started.get(replica["name"], replica["pid"])} for replica in read_json("cluster.json", [])]


def runs(replica):
    """Whether that process is a replica of this cluster, and not a later one with the same number."""
    try:
        command = pathlib.Path(f"/proc/{replica['pid']}/cmdline").read_bytes().decode()
    except OSError:
        return False
    return str(folder() / replica["name"]) in command


def gone(replica):
    """A process that was killed gives up its memory, and with it its command line, before its files and their locks: a
    successor that is started in between finds the data directory locked."""
    process = pathlib.Path(f"/proc/{replica['pid']}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        threads = list((process / "task").iterdir())
        command = (process / "cmdline").read_bytes()
    except OSError:
        return True
    ended = state == "Z" and len(threads) == 1
    # The number may belong to another process by now.
    return ended or (command != b"" and not runs(replica))


def send(replica, number):
    if not runs(replica):
        raise ActivityFailed(f"{replica['name']} does not run, so nothing can be done to it")
    os.kill(replica["pid"], number)


def status(replica):
    try:
        with urllib.request.urlopen(f"http://{replica['ops']}/status", timeout=REQUEST_SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def leader():
    """The name of the leader that a majority agrees on."""

    def agreed():
        names = [said["leader"] for said in map(status, replicas()) if said and said["leader"]]
        for name in names:
            if names.count(name) * 2 > len(replicas()):
                return name
        return None

    return wait(agreed, "a majority follows one leader")


def chosen(who):
    """`who` is "leader" or "follower", and never a replica that is away."""
    name = leader()
    for replica in replicas():
        if runs(replica) and (replica["name"] == name) == (who == "leader"):
            return replica
    raise ActivityFailed(f"no {who} runs")


def wait(condition, what, seconds=PATIENCE_SECONDS):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise ActivityFailed(f"not within {seconds} s: {what}")
        time.sleep(0.2)


# ---- the registry as a client sees it


def request(method, address, path, body=None, headers=None):
    """Status, headers and bytes; None if there was no whole answer."""
    asked = urllib.request.Request(f"http://{address}{path}", data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=REQUEST_SECONDS) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        try:
            return error.code, error.headers, error.read()
        except (OSError, http.client.HTTPException):
            return None
    # The second is a body that ended early, or an answer that is none.
    except (OSError, http.client.HTTPException):
        return None


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def put_blob(address, content):
    answer = request(
        "POST", address, f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest_of(content)}", content,
        {"Content-Type": "application/octet-stream"},
    )
    return answer is not None and answer[0] == 201


def push(replica, name):
    """One image through one replica. What was acknowledged goes into the ledger, step by step; returns whether all was."""
    source = random.Random(name)
    address = replica["registry"]
    ledger = read_json("ledger.json", {"kept": {}, "tag": None, "open": []})
    parts = [source.randbytes(source.randint(1024, 256 * 1024)), json.dumps({"name": name}).encode()]
    for content in parts:
        if not put_blob(address, content):
            return False
        ledger["kept"][digest_of(content)] = "blobs"
        write_json("ledger.json", ledger)
    layer, config = [{"digest": digest_of(content), "size": len(content)} for content in parts]
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer}],
    }).encode()
    digest = digest_of(manifest)
    # Nobody knows what became of a write without an answer: it may still happen.
    ledger["open"].append(digest)
    write_json("ledger.json", ledger)
    answer = request("PUT", address, f"/v2/{REPOSITORY}/manifests/{TAG}", manifest, {"Content-Type": MANIFEST})
    if answer is None or answer[0] >= 500:
        return False
    ledger["open"].remove(digest)
    if answer[0] == 201:
        ledger["kept"][digest] = "manifests"
        # One writer: what was open before this write and has not happened yet may still come after it.
        ledger["tag"] = digest
    write_json("ledger.json", ledger)
    return answer[0] == 201


def pull(replica, digest, kind):
    """The bytes, hashed; None if this replica does not give them now. Wrong bytes end the experiment."""
    answer = request("GET", replica["registry"], f"/v2/{REPOSITORY}/{kind}/{digest}", headers={"Accept": MANIFEST})
    if answer is None or answer[0] >= 500:
        return None
    code, _, content = answer
    if code != 200:
        raise ActivityFailed(f"{replica['name']} answers {code} for {digest}, which was acknowledged")
    if digest_of(content) != digest:
        raise ActivityFailed(f"{replica['name']} gives wrong bytes for {digest}")
    return content


# ---- probes


def all_well():
    """Every replica is ready, follows the same leader, reaches the others and misses nothing."""

    def whole():
        said = [status(replica) for replica in replicas()]
        if not said or not all(said):
            return False
        members = [member for view in said for member in view["members"]]
        ready = [request("GET", replica["ops"], "/readyz") for replica in replicas()]
        return (
            all(answer is not None and answer[0] == 200 for answer in ready)
            and len({view["leader"] for view in said}) == 1
            and len({view["applied"] for view in said}) == 1
            and all(member["reachable"] and member["missing_blobs"] == 0 for member in members)
        )

    wait(whole, "all replicas are ready, follow one leader and miss nothing")
    return True


def lost():
    """How much of what was acknowledged some replica does not give. Every byte is hashed."""
    kept = read_json("ledger.json", {"kept": {}})["kept"]
    if not kept:
        raise ActivityFailed("the ledger is empty: nothing could have been lost")
    missing = [(replica, digest, kind) for replica in replicas() for digest, kind in kept.items()]
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        missing = [(replica, digest, kind) for replica, digest, kind in missing if pull(replica, digest, kind) is None]
        if not missing or time.monotonic() > end:
            return len(missing)
        time.sleep(0.5)


def tag_is_right():
    """Through every replica the tag is the last acknowledged manifest, or one whose fate nobody knows."""
    ledger = read_json("ledger.json", {"tag": None, "open": []})
    for replica in replicas():

        def current():
            answer = request("HEAD", replica["registry"], f"/v2/{REPOSITORY}/manifests/{TAG}", headers={"Accept": MANIFEST})
            fresh = answer is not None and answer[0] == 200 and not answer[1].get("Warning")
            return answer[1]["Docker-Content-Digest"] if fresh else None

        found = wait(current, f"{replica['name']} gives the tag without a warning")
        if found not in [ledger["tag"], *ledger["open"]]:
            raise ActivityFailed(f"{replica['name']} gives {found} for the tag and not {ledger['tag']}")
    return True


# ---- actions


def work(images, seed, patient=False):
    """Pushes so many images, one after the other, and pulls one of the kept ones between them, from any replica.

    With a majority up each push succeeds within 20 s of tries, and each pull; `patient` gives both 90 s, for an
    experiment that takes the majority away."""
    seconds = PATIENCE_SECONDS if patient else CLIENT_SECONDS
    source = random.Random(f"pulls-{seed}")
    with ONE_WRITER:
        for number in range(images):
            # As a kubelet does: one replica after the other until one does it.
            turn = itertools.count(source.randrange(len(replicas())))

            def someone():
                return replicas()[next(turn) % len(replicas())]

            attempts = itertools.count()
            name = f"{seed}-{number}"
            wait(lambda: push(someone(), f"{name}-{next(attempts)}"), f"image {number} is acknowledged", seconds)
            digest, kind = source.choice(sorted(read_json("ledger.json", {})["kept"].items()))
            wait(lambda: pull(someone(), digest, kind), f"some replica gives {digest}", seconds)
            DONE.append(name)
    return images


def under_way(images):
    """Waits until the work in the background has done so many, so that the fault hits something."""
    return wait(lambda: len(DONE) >= images, f"{images} images are pushed in the background")


def kill(who):
    """kill -9 of the leader or of a follower."""
    replica = chosen(who)
    send(replica, signal.SIGKILL)
    wait(lambda: gone(replica), f"{replica['name']} is gone")
    return replica["name"]


def kill_all():
    """kill -9 of all replicas, as near to at once as one process can."""
    everyone = [replica for replica in replicas() if runs(replica)]
    for replica in everyone:
        os.kill(replica["pid"], signal.SIGKILL)
    for replica in everyone:
        wait(lambda: gone(replica), f"{replica['name']} is gone")
    return len(everyone)


def pause(who):
    """SIGSTOP. A process that stands still answers nothing and keeps its connections."""
    replica = chosen(who)
    send(replica, signal.SIGSTOP)
    write_json("paused.json", [*read_json("paused.json", []), replica["name"]])
    return replica["name"]


def another_leads():
    """Waits until the others have a leader that is not one of the paused."""
    paused = read_json("paused.json", [])
    return wait(lambda: (leader() not in paused) and leader(), "the others have a leader of their own")


def resume():
    """SIGCONT for all that were paused."""
    names = read_json("paused.json", [])
    for replica in replicas():
        if replica["name"] in names and runs(replica):
            os.kill(replica["pid"], signal.SIGCONT)
    write_json("paused.json", [])
    return names


def start(replica):
    program = os.environ["EXPERIMENT_PROGRAM"]
    home = folder() / replica["name"]
    # A variable of the tests would be taken for a setting.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TERCET_")}
    with open(home / "tercet.log", "ab") as log:
        process = subprocess.Popen(
            [program, "serve", "--config", str(home / "tercet.toml")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=kept, start_new_session=True,
        )
    write_json("started.json", {**read_json("started.json", {}), replica["name"]: process.pid})


def start_dead():
    """Starts every replica that does not run."""
    names = [replica["name"] for replica in replicas() if not runs(replica)]
    for replica in replicas():
        if replica["name"] in names:
            start(replica)
    return names


def lose_every_blob():
    """What no registry survives. For the experiment that must fail."""
    for replica in replicas():
        shutil.rmtree(folder() / replica["name"] / "data" / "blobs")
    return True


def restart_one_by_one():
    """SIGTERM, wait for the end, start, wait until all is well; each replica in turn, the leader last."""
    last = leader()
    for replica in sorted(replicas(), key=lambda replica: replica["name"] == last):
        send(replica, signal.SIGTERM)
        wait(lambda: gone(replica), f"{replica['name']} ends by itself")
        start(replica)
        all_well()
    return True
