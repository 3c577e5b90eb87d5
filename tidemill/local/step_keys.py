"""The ingredients of a step's cache key by name, and why they differ from an earlier run's.

The pipeline engine looks a step up by one hash. This module keeps what went into the hash by name, at
`ROOT/runs/<id>/keys/<step>.json`, so that `tidemill run` and `tidemill explain` can say why a step ran again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tidemill import fingerprint, storage
from tidemill.data import source_record
from tidemill.errors import TidemillError
from tidemill.steps import step_codes
from tidemill.steps.core.spec import spec_document

FOLDER = "keys"
FIRST_RUN = "first run"
NO_CACHE = "--no-cache was given"
CACHE_REMOVED = "its cache entry or its artifacts were removed"
INPUT_METADATA = "metadata of an input changed"
UNFINISHED = "its last attempt did not finish"
_DERIVED = ("lineage", "run_fingerprint")
"""Spec fields that follow from other ingredients. They are a reason only if there is no other."""
_MAX_VALUE_CHARS = 60


@dataclass
class StepKey:
    """The ingredients of one step's cache key."""

    key: str
    """The engine's hash."""
    component: str = ""
    """Fingerprint of the component's source, image and environment variables."""
    code: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the modules and templates that the step can reach, by path. Empty for steps without a spec."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Versions by distribution."""
    sources: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the source tables' files by table."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The step's other parameters. Those of a spec have dotted names, such as `training.epochs`."""
    inputs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """`uri` and `fingerprint` (None if it has none) of the artifacts of each input."""

    def write(self, run_folder: Path, step: str) -> None:
        """Writes the key to the run's folder."""
        storage.write_text(str(_file(run_folder, step)), json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, run_folder: Path, step: str) -> StepKey | None:
        """Reads the key from a run's folder. Returns None if the run recorded none for the step."""
        try:
            return cls(**json.loads(_file(run_folder, step).read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None


def step_key(key: str, parameters: Mapping[str, object], inputs: Mapping[str, object], component: object) -> StepKey:
    """Returns the named ingredients of a step's cache key.

    Args:
        key: The engine's hash.
        parameters: Values of the step's parameters by name. The spec that `spec` names is taken apart.
        inputs: The step's input artifacts by name, each an object with `uri` and `metadata` or a list of such objects.
        component: JSON-serializable description of what the step runs.
    """
    result = StepKey(key, component=fingerprint.of_json(component))
    for name, value in parameters.items():
        if name == "spec" and (spec := read_spec(value)):
            result.code |= _files(spec)
            result.libraries |= spec.pop("libraries", {})
            if source := spec.pop("source_fingerprint", None):
                result.sources |= _tables(str(parameters.get("root", "")), source)
            result.parameters |= _flat(spec)
        elif name != "root":
            result.parameters[name] = value
    for name, value in inputs.items():
        artifacts: Iterable[Any] = value if isinstance(value, list) else [value]
        result.inputs[name] = [{"uri": a.uri, "fingerprint": a.metadata.get("fingerprint")} for a in artifacts]
    return result


def differences(now: StepKey, before: StepKey) -> list[str]:
    """Returns a text for each difference between two keys, the most telling first. Empty if the keys are equal."""
    step = now.parameters.get("step")
    reasons = [f"code of {step} changed: {path}" for path in _changed(now.code, before.code)]
    if now.component != before.component and not reasons:
        reasons.append("component changed")
    for name in _changed(now.libraries, before.libraries):
        old, new = before.libraries.get(name, "none"), now.libraries.get(name, "none")
        reasons.append(f"library {name} changed from {old} to {new}")
    reasons += [f"source table {name} changed" for name in _changed(now.sources, before.sources)]
    derived = []
    for name in _changed(now.parameters, before.parameters):
        if name in _DERIVED:
            derived.append(f"{name} changed")
        else:
            reasons.append(_parameter_change(name, now.parameters, before.parameters))
    for name in _changed(now.inputs, before.inputs):
        reasons.append(_input_change(name, now.inputs.get(name, []), before.inputs.get(name, [])))
    return reasons or derived


def previous(root: Path, run: str, experiment: str, pipeline: str, step: str) -> tuple[str, StepKey, str] | None:
    """Finds the newest earlier run of the same experiment and pipeline that recorded a key of the step.

    Args:
        root: Folder of all runs.
        run: Id of the run to compare.
        experiment: The experiment's name.
        pipeline: The pipeline's name.
        step: The step's name.

    Returns:
        The earlier run's id, the key and the state in which the step ended. None if there is no such run.
    """
    for folder in sorted((root / "runs").glob("*"), reverse=True):
        if folder.name >= run or (key := StepKey.read(folder, step)) is None:
            continue
        recorded = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if (recorded["experiment"], recorded["pipeline"]) == (experiment, pipeline):
            states = {each["name"]: each["state"] for each in recorded["steps"]}
            return folder.name, key, states.get(step, "")
    return None


def reasons(now: StepKey, before: StepKey | None, state: str, *, use_cache: bool) -> list[str]:
    """Returns the reasons for which a step ran again.

    Args:
        now: The step's key.
        before: The key of an earlier run, None for the first run.
        state: The state in which the step ended in the earlier run.
        use_cache: Whether the run uses results of earlier runs.

    Returns:
        At least one reason.
    """
    if before is None:
        return [FIRST_RUN]
    if not use_cache:
        return [NO_CACHE]
    if changes := differences(now, before):
        return changes
    if now.key != before.key:
        return [INPUT_METADATA]
    return [CACHE_REMOVED if state in ("done", "cached") else UNFINISHED]


def _parameter_change(name: str, now: dict[str, Any], before: dict[str, Any]) -> str:
    values = [json.dumps(values[name]) if name in values else "none" for values in (before, now)]
    if max(map(len, values)) > _MAX_VALUE_CHARS:
        return f"parameter {name} changed"
    return f"parameter {name} changed from {values[0]} to {values[1]}"


def _input_change(name: str, now: list[dict[str, Any]], before: list[dict[str, Any]]) -> str:
    fingerprints = [[each["fingerprint"] for each in artifacts] for artifacts in (now, before)]
    if fingerprints[0] == fingerprints[1] and None not in fingerprints[0]:
        return f"input {name} was written again, with the same content"
    return f"input {name} changed"


def _changed(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    names = [*now, *(name for name in before if name not in now)]
    missing = object()
    return [name for name in names if now.get(name, missing) != before.get(name, missing)]


def read_spec(value: object) -> dict[str, Any] | None:
    """Reads the spec that a parameter `spec` names. Returns None for another value, or if the spec does not exist."""
    if not isinstance(value, str) or not value:
        return None
    try:
        spec = spec_document(value)
    except (TidemillError, ValueError):
        return None
    return spec if isinstance(spec, dict) and {"step", "code"} <= spec.keys() else None


def _files(spec: dict[str, Any]) -> dict[str, str]:
    """Returns the files that a spec's code fingerprint covers, or only the fingerprint if the sources have changed
    since."""
    code, step = spec.pop("code"), step_codes().get(spec["step"])
    files = step.files() if step else {}
    return files if fingerprint.of_json(files) == code else {"(all)": code}


def _tables(root: str, source: str) -> dict[str, str]:
    """Returns a fingerprint for each table of a source record, or one for all tables if the record does not exist."""
    try:
        record = source_record.load_record(root, source)
    except TidemillError:
        return {"(all)": source}
    tables: dict[str, list[tuple[str, int]]] = {}
    for file in record.files:
        tables.setdefault(file.table, []).append((file.version, file.bytes))
    return {name: fingerprint.of_json(sorted(files)) for name, files in tables.items()}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a spec to dotted names. Lists and derived fields stay values."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner and name not in _DERIVED:
            flat |= _flat(inner, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = fingerprint.of_json(inner) if name in _DERIVED else inner
    return flat


def _file(run_folder: Path, step: str) -> Path:
    return run_folder / FOLDER / f"{step}.json"
