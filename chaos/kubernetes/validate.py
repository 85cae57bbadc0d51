#!/usr/bin/env python3
"""Checks every file for a chaos tool against that tool's schema; a field that the schema does not know is an error.

Chaos Mesh     the CRDs out of its Go module, pinned by version and hash, and its own admission code (./admission)
Litmus, krkn   the schemas in ./schemas, which say where they are from

Needs Python with PyYAML and, for Chaos Mesh, Go and the program that chaos/setup.sh has built with it. Where that has
found no Go, it has left a reason behind, and the files for Chaos Mesh are left out with it. Then every field of every
file is misspelt once, and each time that has to be found: a check that finds nothing would be no check.

Exit code: 0 all files are right; 1 one is not; 69 something that is needed is missing.
"""

import argparse
import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).resolve().parent

# The newest state of Chaos Mesh that the Go module proxy serves; its CRDs of the kinds used here are those of 2.8.3.
CHAOS_MESH = "github.com/chaos-mesh/chaos-mesh"
CHAOS_MESH_VERSION = "v0.9.1-0.20260902003049-47411975a8cb"
CHAOS_MESH_SUM = "h1:0TeWmCELKreoLAXuoPaO2qpJe73foDgOoyU3fdKQN4A="

TWELVE = 12

# What a CRD does not say of the fields that every object has.
METADATA = {
    "type": "object",
    "required": ["name", "namespace", "labels"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


class Missing(Exception):
    """Something that the check needs is not on this machine."""


# ---- a document against a structural schema


def errors(value, schema, path=""):
    """What is wrong with `value`, as an API server sees it that validates fields strictly."""
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            yield f"{path}: {value!r} is neither integer nor string"
        return
    kind = schema.get("type")
    expected = TYPES.get(kind)
    if expected and (not isinstance(value, expected) or (kind != "boolean" and isinstance(value, bool))):
        yield f"{path}: {value!r} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield f"{path}: {value} is below {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{path}: {value} is above {schema['maximum']}"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{path}: has too few items"
        for index, item in enumerate(value):
            yield from errors(item, schema.get("items", {}), f"{path}[{index}]")
    if isinstance(value, dict):
        for name in schema.get("required", []):
            if name not in value:
                yield f"{path}: lacks {name!r}"
        for name, item in value.items():
            known = field(schema, name)
            if known is None:
                yield f"{path}: unknown field {name!r}"
            else:
                yield from errors(item, known, f"{path}.{name}")


def field(schema, name):
    """The schema of one field of an object; None if there is no such field."""
    if name in schema.get("properties", {}):
        return schema["properties"][name]
    if isinstance(schema.get("additionalProperties"), dict):
        return schema["additionalProperties"]
    if schema.get("additionalProperties") is True or schema.get("x-kubernetes-preserve-unknown-fields"):
        return {}
    return None


def misspelt(value, schema, path=()):
    """The path to every field of `value` whose name the schema gives."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from misspelt(item, schema.get("items", {}), path + (index,))
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in schema.get("properties", {}):
                yield path + (name,)
            yield from misspelt(item, field(schema, name) or {}, path + (name,))


def with_misspelling(document, path):
    wrong = copy.deepcopy(document)
    at = wrong
    for step in path[:-1]:
        at = at[step]
    at[path[-1] + "x"] = at.pop(path[-1])
    return wrong


# ---- the files


def read(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document is not None]


def download_crds():
    """The folder of Chaos Mesh's CRDs; Go checks the module against its checksum database, we against the pinned hash."""
    if not shutil.which("go"):
        raise Missing("Go, which fetches the definitions of Chaos Mesh")
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            ["go", "mod", "download", "-json", f"{CHAOS_MESH}@{CHAOS_MESH_VERSION}"],
            cwd=empty, env={**os.environ, "GOFLAGS": ""}, capture_output=True, text=True, check=False,
        )
    if done.returncode != 0:
        raise Missing(f"{CHAOS_MESH}@{CHAOS_MESH_VERSION}: {done.stdout}{done.stderr}")
    module = json.loads(done.stdout)
    if module["Sum"] != CHAOS_MESH_SUM:
        raise SystemExit(f"{CHAOS_MESH} has the hash {module['Sum']} and not {CHAOS_MESH_SUM}")
    return pathlib.Path(module["Dir"]) / "config" / "crd" / "bases"


def crd_schemas(folder, names):
    """For each kind the schema of its served version, with the metadata that a CRD leaves to the API server."""
    schemas = {}
    for name in names:
        (crd,) = read(folder / name)
        (version,) = [version for version in crd["spec"]["versions"] if version["served"]]
        schema = copy.deepcopy(version["schema"]["openAPIV3Schema"])
        api = f"{crd['spec']['group']}/{version['name']}"
        kind = crd["spec"]["names"]["kind"]
        schema.setdefault("required", []).extend(["apiVersion", "kind", "metadata", "spec"])
        schema["properties"]["metadata"] = METADATA
        schema["properties"]["apiVersion"] = {"type": "string", "enum": [api]}
        schema["properties"]["kind"] = {"type": "string", "enum": [kind]}
        schemas[kind] = schema
    return schemas


def chaos_mesh():
    kinds = ["podchaos", "networkchaos", "iochaos", "timechaos", "stresschaos", "schedules", "workflows"]
    schemas = crd_schemas(download_crds(), [f"chaos-mesh.org_{kind}.yaml" for kind in kinds])
    for folder in ("experiments", "schedules", "workflows"):
        paths = sorted((HERE / "chaos-mesh" / folder).glob("*.yaml"))
        if len(paths) != TWELVE:
            yield HERE / "chaos-mesh" / folder, None, None, f"has {len(paths)} files, not {TWELVE}"
        for path in paths:
            (document,) = read(path)
            schema = schemas.get(document.get("kind"))
            yield path, document, schema, None if schema else f"no kind of Chaos Mesh: {document.get('kind')!r}"


def litmus(crds):
    own = read(HERE / "schemas" / "litmus.yaml")[0]
    real = crd_schemas(crds, ["chaosengine_crd.yaml"])["ChaosEngine"] if crds else None
    for path in sorted((HERE / "litmus").glob("*.yaml")):
        if path.name == "access.yaml":
            continue
        (document,) = read(path)
        yield path, document, own["engine"], None
        # Litmus's own definition keeps unknown fields in most places, so no misspelling is tried on it.
        for problem in errors(document, real) if real else []:
            yield path, None, None, f"by Litmus's own definition: {problem}"
        for experiment in document["spec"]["experiments"]:
            known = own["variables"].get(experiment["name"], [])
            for variable in experiment["spec"]["components"]["env"]:
                if variable["name"] not in known:
                    yield path, None, None, f"{experiment['name']} knows no variable {variable['name']!r}"


def krkn():
    own = read(HERE / "schemas" / "krkn.yaml")[0]
    config = HERE / "krkn" / "config.yaml"
    (document,) = read(config)
    yield config, document, own["config"], None
    named = set()
    for entry in document["kraken"]["chaos_scenarios"]:
        for kind, names in entry.items():
            for name in names:
                named.add(name)
                path = HERE / "krkn" / name
                (scenario,) = read(path)
                yield path, scenario, own["scenarios"][kind], None
    for path in sorted((HERE / "krkn" / "scenarios").glob("*.yaml")):
        if f"scenarios/{path.name}" not in named:
            yield path, None, None, "config.yaml does not name it"


def local_scenario(document, path):
    """Every fault names the local scenario of the same hypothesis, and that one is there."""
    if path.name == "config.yaml":
        return None
    if isinstance(document, dict) and "metadata" in document:
        name = document["metadata"].get("annotations", {}).get("tercet-scenario")
    else:
        found = re.search(r"^# Local scenario +(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        name = found.group(1) if found else None
    if name is None:
        return "names no local scenario"
    source = HERE.parent / "src" / "scenario" / f"{name.replace('-', '_')}.rs"
    return None if source.exists() else f"no such local scenario: {name}"


# ---- the admission code of Chaos Mesh


def cache_bin():
    """Where chaos/setup.sh puts what it builds."""
    return pathlib.Path(os.environ.get("TERCET_CACHE") or pathlib.Path.home() / ".cache" / "tercet") / "bin"


def without_chaos_mesh():
    """Why chaos/setup.sh could not build what the files for Chaos Mesh are checked with; None if it could."""
    reason = cache_bin() / "without-chaos-mesh-admission"
    return reason.read_text(encoding="utf-8").strip() if reason.exists() else None


def admission_program():
    """The program that chaos/setup.sh built, or one that is built now."""
    built = cache_bin() / "chaos-mesh-admission"
    if built.exists():
        return [str(built)]
    if not shutil.which("go"):
        raise Missing("Go, which builds the admission check of Chaos Mesh")
    return ["go", "run", "-buildvcs=false", "."]


def admit(paths):
    return subprocess.run(
        admission_program() + [str(path) for path in paths],
        cwd=HERE / "admission", capture_output=True, text=True, check=False,
    )


def admitted(checked):
    """What Chaos Mesh's own code refuses, and which misspellings it does not."""
    paths = [path for path, _, _ in checked] + [HERE / "chaos-mesh" / "ledger.yaml", HERE / "litmus" / "access.yaml"]
    done = admit(paths)
    print("admission:", done.stdout.strip())
    if done.returncode != 0:
        yield done.stderr.strip() or f"the admission check ended with {done.returncode}"
    with tempfile.TemporaryDirectory() as folder:
        wrong = []
        for path, document, schema in checked:
            # The first field of the specification, in a file of its own; a file with one mistake is refused as a whole.
            name = next(iter(document["spec"]))
            target = pathlib.Path(folder) / f"{path.parent.name}-{path.name}"
            target.write_text(yaml.safe_dump(with_misspelling(document, ("spec", name))), encoding="utf-8")
            wrong.append(target)
        refused = admit(wrong).stderr.count("unknown field")
        print(f"admission: {refused} of {len(wrong)} misspelt documents refused")
        if refused != len(wrong):
            yield f"the admission check took {len(wrong) - refused} misspelt documents"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litmus-crds", type=pathlib.Path, help="a folder with Litmus's chaosengine_crd.yaml")
    arguments = parser.parse_args()
    wrong, right, refused, mesh = [], 0, 0, []
    tools = [("litmus", litmus(arguments.litmus_crds)), ("krkn", krkn())]
    without = without_chaos_mesh()
    if without:
        print(f"the files for Chaos Mesh are not checked: {without}")
    else:
        tools.insert(0, ("mesh", chaos_mesh()))
    try:
        for tool, files in tools:
            for path, document, schema, problem in files:
                found = [problem] if problem else []
                if document is not None and schema is not None:
                    found += list(errors(document, schema))
                    found += [problem for problem in [local_scenario(document, path)] if problem]
                    for at in misspelt(document, schema):
                        if any(errors(with_misspelling(document, at), schema)):
                            refused += 1
                        else:
                            found.append(f"nobody would see {'.'.join(map(str, at))} misspelt")
                    if tool == "mesh":
                        mesh.append((path, document, schema))
                right += not found
                wrong += [f"{path.relative_to(HERE)}: {problem}" for problem in found]
        if mesh:
            wrong += admitted(mesh)
    except Missing as missing:
        print(f"chaos/kubernetes/validate.py needs {missing}", file=sys.stderr)
        return 69
    rendered = subprocess.run([sys.executable, str(HERE / "render.py"), "--check"], capture_output=True, text=True, check=False)
    if rendered.returncode != 0:
        wrong.append(f"{rendered.stdout.strip()}: run chaos/kubernetes/render.py")
    for problem in wrong:
        print(problem, file=sys.stderr)
    print(f"schemas: {right} documents right, {len(wrong)} mistakes; {refused} misspellings tried, all refused"
          if not wrong else f"schemas: {right} documents right, {len(wrong)} mistakes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
