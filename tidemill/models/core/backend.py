"""The framework that computes the networks of this process: TensorFlow or JAX.

Keras has one backend per process, which must be selected before Keras is imported. Importing this module does not
import Keras.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tidemill.cpus import available_cpus
from tidemill.errors import Code, TidemillError

if TYPE_CHECKING:
    import jax
    import keras
    import tensorflow as tf

WHERE = "training.backend"
VARIABLE = "KERAS_BACKEND"
BACKENDS = ("tensorflow", "jax")
ScoreFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From ids [rows, id features] int32 and numbers [rows, number features] float32 to probabilities [rows, labels]
float32."""
_MIN_SCORED_ROWS = 256


def select(backend: str, threads: int | None = None) -> None:
    """Selects the framework of this process's networks.

    Args:
        backend: `tensorflow` or `jax`.
        threads: Threads of JAX's CPU device. Defaults to all available cores.

    Raises:
        TidemillError: `missing-package` if JAX is not installed, and `unsupported` if Keras already runs on another
            framework in this process.
    """
    if "keras" in sys.modules and current() != backend:
        got = f"{backend!r} in a process where Keras was imported with {current()!r}"
        raise TidemillError(Code.UNSUPPORTED, WHERE, got, "train in a separate process, as the train step does")
    if backend == "jax":
        _configure_xla(threads or available_cpus())
        try:
            importlib.import_module("jax")
        except ImportError as error:
            want = "install Tidemill with its extra jax, or remove training.backend"
            raise TidemillError(Code.MISSING_PACKAGE, WHERE, f"'jax' ({error})", want) from error
    os.environ[VARIABLE] = backend


def current() -> str:
    """Returns the framework that Keras runs on, or `tensorflow` if Keras is not imported yet."""
    keras = sys.modules.get("keras")
    return "tensorflow" if keras is None else keras.config.backend()


def framework() -> str:
    """Imports Keras and returns its framework, one of `BACKENDS`.

    Raises:
        TidemillError: `unsupported` if Keras runs on another one.
    """
    importlib.import_module("keras")
    if current() not in BACKENDS:
        got = f"{current()!r}, which Keras runs on in this process"
        raise TidemillError(Code.UNSUPPORTED, VARIABLE, got, f"unset {VARIABLE}, or set it to one of {[*BACKENDS]}")
    return current()


def distributions() -> tuple[str, ...]:
    """Returns the distributions of the current framework. Their versions decide the result."""
    return ("jax", "jaxlib") if current() == "jax" else (current(),)


def network_inputs(network: keras.Model, ids: Any, numbers: Any) -> dict[str, Any]:
    """Returns the tensors that the network has an input for, by input name."""
    return {name: value for name, value in (("ids", ids), ("numbers", numbers)) if name in network.input}


def network_tensors(network: keras.Model, ids: tf.Tensor, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the network's inputs as TensorFlow tensors of known widths."""
    import tensorflow as tf

    inputs, declared = network_inputs(network, ids, numbers), cast(dict[str, Any], network.input)
    return {name: tf.ensure_shape(value, declared[name].shape) for name, value in inputs.items()}


def scorer(network: keras.Model) -> ScoreFunction:
    """Compiles a network to a function that scores rows.

    Raises:
        TidemillError: As for `framework`.
    """
    return _jax_scorer(network) if framework() == "jax" else _tensorflow_scorer(network)


def _tensorflow_scorer(network: keras.Model) -> ScoreFunction:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.float32)])
    def scores(ids: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        return network(network_tensors(network, ids, numbers), training=False)

    score: Callable[..., Any] = scores
    return lambda ids, numbers: score(ids, numbers).numpy()


def _jax_scorer(network: keras.Model) -> ScoreFunction:
    import jax

    @jax.jit
    def scores(trainable: list, other: list, inputs: dict[str, jax.Array]) -> jax.Array:
        # By default a GPU multiplies with fewer bits than float32. The exported model must return the same scores.
        with jax.default_matmul_precision("highest"):
            return network.stateless_call(trainable, other, inputs, training=False)[0]

    def score(ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        rows = len(ids)
        # JAX compiles once for each number of rows, so rows are padded to few different numbers.
        padding = max(_MIN_SCORED_ROWS, 1 << (rows - 1).bit_length()) - rows if rows else 0
        inputs = network_inputs(network, *(np.pad(matrix, ((0, padding), (0, 0))) for matrix in (ids, numbers)))
        groups = (network.trainable_variables, network.non_trainable_variables)
        return np.array(scores(*([variable.value for variable in group] for group in groups), inputs))[:rows]

    return score


def _configure_xla(threads: int) -> None:
    """Sets what XLA reads from the environment when JAX first runs. Keeps a user's own values."""
    os.environ.setdefault("NPROC", str(threads))  # threads of the CPU device
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        # Without it, XLA picks GPU kernels by timing them, and the last bits differ from run to run.
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
