"""Settings of pods that Kubeflow fixes when a pipeline is compiled: Kueue's labels and time limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tidemill.errors import Code, TidemillError, suggest_name

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class PodSettings:
    """Settings of the pods of a compiled pipeline."""

    queue: str | None = None
    """Kueue's local queue of the training steps. None: the steps do not wait for a quota."""
    priority: str | None = None
    """Kueue's workload priority class of the training steps."""
    timeouts: Mapping[str, int] = field(default_factory=dict)
    """Seconds by component, after which Kubernetes ends an attempt of the step."""

    def write_into(self, path: Path) -> None:
        """Writes the settings into a compiled component or pipeline."""
        text = path.read_text(encoding="utf-8")
        documents = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
        if len(documents) == 1:
            documents.append({})
        pipeline, platform = documents
        executors = platform
        for key in ("platforms", "kubernetes", "deploymentSpec", "executors"):
            executors = executors.setdefault(key, {})
        for label, component in _components(pipeline).items():
            labels = self._labels() if component == "train" else {}
            if labels:
                executors.setdefault(label, {})["podMetadata"] = {"labels": labels}
            if component in self.timeouts:
                executors.setdefault(label, {})["activeDeadlineSeconds"] = str(self.timeouts[component])
        if executors:
            head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
            path.write_text(head + yaml.safe_dump_all(documents, sort_keys=True), encoding="utf-8")

    def _labels(self) -> dict[str, str]:
        given = {QUEUE_LABEL: self.queue, PRIORITY_LABEL: self.priority}
        return {label: value for label, value in given.items() if value is not None}


def pod_settings(queue: str | None, priority: str | None, timeouts: list[str], components: list[str]) -> PodSettings:
    """Returns the settings that options name.

    Args:
        queue: Kueue's local queue, or None.
        priority: Kueue's workload priority class, or None. Needs a queue.
        timeouts: Texts such as `train=6h`; a number without a unit is of seconds.
        components: Names of the components that exist.

    Raises:
        TidemillError: `invalid-value` for what is no name of Kubernetes, no component or no time.
    """
    for option, name in (("--queue", queue), ("--priority", priority)):
        if name is not None and not _LABEL.fullmatch(name):
            want = "write lower-case letters, digits and -, as in Kueue's object"
            raise TidemillError(Code.INVALID_VALUE, option, repr(name), want)
    if priority is not None and queue is None:
        raise TidemillError(Code.INVALID_VALUE, "--priority", repr(priority), "name the queue too, with --queue")
    seconds = {}
    for text in timeouts:
        component, _, time = text.partition("=")
        match = re.fullmatch(r"(\d{1,7})([smhd]?)", time)
        if component not in components:
            want = suggest_name(component, components)
            raise TidemillError(Code.INVALID_VALUE, "--timeout", repr(text), f"{want}; write it as train=6h")
        if match is None or int(match[1]) == 0:
            raise TidemillError(
                Code.INVALID_VALUE, "--timeout", repr(text), "write a time such as train=6h or train=90m"
            )
        seconds[component] = int(match[1]) * _SECONDS[match[2] or "s"]
    return PodSettings(queue, priority, seconds)


def _components(pipeline: dict[str, Any]) -> dict[str, str]:
    """Returns the component's function by executor."""
    option, found = "--function_to_execute", {}
    for label, executor in pipeline["deploymentSpec"]["executors"].items():
        arguments = executor.get("container", {}).get("args", [])
        if option in arguments:
            found[label] = arguments[arguments.index(option) + 1]
    return found
