"""Which framework trains the networks. Keras has one in a process, which is chosen before Keras is imported: nothing
here imports it."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from tidemill.errors import Code, TidemillError
from tidemill.experiment.training import Training
from tidemill.training.threads import default_threads

WHERE = "training.backend"
VARIABLE = "KERAS_BACKEND"
_MODULES = {"tensorflow": "tidemill.training.on_tensorflow", "jax": "tidemill.training.on_jax"}


def select(training: Training) -> None:
    """Chooses the framework of this process's networks.

    Args:
        training: `backend` names it; with `jax`, `threads` are those of its CPU device.

    Raises:
        TidemillError: `missing-package` where JAX is not installed, and `unsupported` where Keras runs on another
            framework in this process already.
    """
    wanted = training.backend
    if "keras" in sys.modules and current() != wanted:
        got = f"{wanted!r} in a process where Keras was imported with {current()!r}"
        raise TidemillError(Code.UNSUPPORTED, WHERE, got, "train in a process of its own, as the train step does")
    if wanted == "jax":
        _set_up_xla(training.threads or default_threads())
        try:
            importlib.import_module("jax")
        except ImportError as error:
            want = "install Tidemill with its extra jax, or leave out training.backend"
            raise TidemillError(Code.MISSING_PACKAGE, WHERE, f"'jax' ({error})", want) from error
    os.environ[VARIABLE] = wanted


def current() -> str:
    """The framework of this process's networks; `tensorflow` where there are none yet."""
    keras = sys.modules.get("keras")
    return "tensorflow" if keras is None else keras.config.backend()


def distributions() -> tuple[str, ...]:
    """The distributions of the present framework, whose versions decide the result."""
    return ("jax", "jaxlib") if current() == "jax" else (current(),)


def framework() -> ModuleType:
    """The module that trains on it, which imports Keras. Each has `prepare(seed, threads)`, a `Stepper` called `Steps`,
    and `scorer(network)`.

    Raises:
        TidemillError: `unsupported` where Keras runs on another one.
    """
    importlib.import_module("keras")
    if current() not in _MODULES:
        got = f"{current()!r}, which Keras runs on in this process"
        raise TidemillError(Code.UNSUPPORTED, VARIABLE, got, f"unset {VARIABLE}, or set it to one of {[*_MODULES]}")
    return importlib.import_module(_MODULES[current()])


def _set_up_xla(threads: int) -> None:
    """What XLA reads from the environment when JAX first runs. A user's own values stay."""
    os.environ.setdefault("NPROC", str(threads))  # the threads of the CPU device
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        # The choice among a GPU's kernels by their time, which differs from run to run, would change the last bits.
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
