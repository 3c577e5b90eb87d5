"""The attempts of a training on a cluster.

A pipeline starts a training's pod again after every failure, and cannot tell a spot node that went away from a mistake.
So the attempts of one task keep a record: errors have a budget of their own, which preemptions do not use up, and what
the user has to mend is not tried again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator

from tidemill import storage
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Preempted

POD = "KFP_POD_NAME"
"""Where Kubeflow names the pod: the run's name, the template's, and the attempt's number of its own."""
_RECORD = "attempts.json"


class GivenUp(Exception):
    """A training has failed too often."""


@contextlib.contextmanager
def attempt(root: str, task: str, retries: int) -> Iterator[None]:
    """Surrounds one attempt of a task. Outside of a cluster, where nothing is started again, it does nothing.

    Args:
        root: URI of the folder where Tidemill keeps things.
        task: What tells the task apart from the others of its run, such as its spec.
        retries: How often the task may be tried again after an error that is not the user's. Preemptions do not count,
            nor does an end without notice, which on a spot node is one.

    Raises:
        TidemillError: an earlier attempt has found a mistake of the user's.
        GivenUp: earlier attempts have used up the retries.
    """
    pod = os.environ.get(POD)
    if pod is None:
        yield
        return
    key = hashlib.sha256(task.encode()).hexdigest()[:16]
    folder = storage.join(root, "attempts", pod.rpartition("-")[0], key)
    record = _read(folder)
    if mistake := record.get("mistake"):
        raise TidemillError(
            Code[mistake["code"]], *(mistake[name] for name in ("where", "got", "want")), mistake["details"]
        )
    errors = record.get("errors", [])
    if len(errors) > retries:
        told = f"{len(errors)} attempts have failed, the last with {errors[-1]}"
        raise GivenUp(f"{told}; mend that and start a new run, or remove {folder} and retry this one")
    try:
        yield
    except Preempted:
        raise
    except TidemillError as error:
        told = {name: getattr(error, name) for name in ("where", "got", "want", "details")}
        _write(folder, record | {"mistake": told | {"code": error.code.name}})
        raise
    except Exception as error:
        _write(folder, record | {"errors": [*errors, f"{type(error).__name__}: {error}"]})
        raise
    storage.remove_folder(folder)


def _read(folder: str) -> dict:
    uri = storage.join(folder, _RECORD)
    return json.loads(storage.read_text(uri)) if storage.exists(uri) else {}


def _write(folder: str, record: dict) -> None:
    storage.write_text(storage.join(folder, _RECORD), json.dumps(record, default=str))
