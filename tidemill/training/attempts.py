"""The record of a task's attempts on a cluster.

Kubeflow restarts the pod of a training step after every failure and cannot distinguish a preempted spot node from an
error. So the attempts of one task keep a record. Errors have a budget, which preemptions do not use up. A user error is
not retried.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from tidemill import storage
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Preempted

POD = "KFP_POD_NAME"
"""The variable with the pod's name: that of the run and the template, and a number for each attempt."""
_RECORD = "attempts.json"


class GivenUp(Exception):
    """The error for a training step that has failed too often."""


@contextlib.contextmanager
def attempt(root: str, task: str, retries: int) -> Iterator[None]:
    """Surrounds one attempt of a task. Does nothing outside of a cluster.

    Args:
        root: URI of the root.
        task: Distinguishes the task from others of its run, such as its spec.
        retries: Number of retries after errors of the system. Preemptions do not count. Nor do attempts that end
            without any notice, which on a spot node is a preemption.

    Raises:
        TidemillError: An earlier attempt ended with this user error.
        GivenUp: Earlier attempts used up the retries.
    """
    pod = os.environ.get(POD)
    if pod is None:
        yield
        return
    key = hashlib.sha256(task.encode()).hexdigest()[:16]
    folder = storage.join(root, "attempts", pod.rpartition("-")[0], key)
    record = _read(folder)
    if mistake := record.get("mistake"):
        where, got, want = (mistake[name] for name in ("where", "got", "want"))
        raise TidemillError(Code[mistake["code"]], where, got, want, mistake["details"])
    errors = record.get("errors", [])
    if len(errors) > retries:
        failed = f"{len(errors)} attempts have failed, the last with {errors[-1]}"
        raise GivenUp(f"{failed}; fix the cause and start a new run, or remove {folder} and retry this one")
    try:
        yield
    except Preempted:
        raise
    except TidemillError as error:
        mistake = {name: getattr(error, name) for name in ("where", "got", "want", "details")}
        _write(folder, record | {"mistake": mistake | {"code": error.code.name}})
        raise
    except Exception as error:
        _write(folder, record | {"errors": [*errors, f"{type(error).__name__}: {error}"]})
        raise
    storage.remove_folder(folder)


def _read(folder: str) -> dict[str, Any]:
    uri = storage.join(folder, _RECORD)
    return storage.read_json(uri) if storage.exists(uri) else {}


def _write(folder: str, record: dict[str, Any]) -> None:
    storage.write_text(storage.join(folder, _RECORD), json.dumps(record, default=str))
