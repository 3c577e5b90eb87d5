"""Tidemill: a Kubeflow Pipelines component library for tabular and click-through-rate models.

The Python API is `load`, `run`, `load_model`, and `tidemill.transform` for the transform engine by itself. Importing
the package loads none of their modules; the first use of a name does. It takes a millisecond, because Ctrl-C on the
command line gives a traceback until then.
"""

from __future__ import annotations

import importlib

from tidemill.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tidemill import transform
    from tidemill.api import FinishedRun, PublishedModel, Report, RunFailed, load, load_model, run
    from tidemill.errors import TidemillError

__all__ = [
    "FinishedRun",
    "PublishedModel",
    "Report",
    "RunFailed",
    "TidemillError",
    "__version__",
    "load",
    "load_model",
    "run",
    "transform",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "transform":
        return importlib.import_module("tidemill.transform")
    return getattr(importlib.import_module("tidemill.errors" if name == "TidemillError" else "tidemill.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
