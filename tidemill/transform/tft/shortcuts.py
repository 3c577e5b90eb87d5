"""Shortcuts that make TensorFlow and TFT trace faster. The graph computes the same. Imports TensorFlow."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import tensorflow as tf

from tidemill.transform.tft import private

_LOCK = threading.RLock()
"""TFT's trackers and the patched functions are global, so only one thread at a time may use them."""
_PACKAGES = ("tensorflow.", "tensorflow_transform.", f"{__package__}.")


@contextlib.contextmanager
def quick_ops() -> Iterator[None]:
    """Makes ops that this thread creates share the record of their Python stack. Other threads wait.

    TensorFlow would record a stack for each op, which takes a tenth of a trace. Ops of one call in the caller's code,
    reached through the same calls, share the first one's stack.
    """
    with _LOCK, replaced(private.STACKS, "extract_stack", _SharedStacks):
        yield


@contextlib.contextmanager
def quick_trace() -> Iterator[None]:
    """Skips work that tracing a preprocessing_fn does not need, while this thread traces. Includes `quick_ops`.

    - TFT copies each input because the function may change it, and a ragged tensor caches its row lengths. Here only
      the Python objects are new; the tensors in them are shared.
    - TensorFlow looks for the ops that must run before each op. Without stateful ops there are none.
    - TensorFlow makes a constant for each integer that it passes to an op, such as an axis or a shape. Here equal
      integers share one constant.
    """
    with (
        quick_ops(),
        replaced(private.LOOKUPS, "copy_tensors", lambda original: _copied),
        replaced(private.CONTROL_DEPENDENCIES, "AutomaticControlDependencies", lambda original: _ControlDependencies),
        replaced(private.GRAPHS, "_create_graph_constant", _SharedConstants),
    ):
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replaces a function of a module or class for this thread. Two threads must not use it at the same time.

    Args:
        owner: The module or class.
        name: The function's name there.
        make: Makes the replacement from the original.
    """
    original, thread = getattr(owner, name), threading.get_ident()
    replacement = make(original)

    def call(*arguments: Any, **named: Any) -> Any:
        return (replacement if threading.get_ident() == thread else original)(*arguments, **named)

    try:
        setattr(owner, name, call)
        yield
    finally:
        setattr(owner, name, original)


def _copied(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tf.nest.map_structure(_as_if_copied, t, expand_composites=True) for name, t in tensors.items()}


def _as_if_copied(tensor: tf.Tensor) -> tf.Tensor:
    # Reserves the copy's name: later scopes, after which vocabularies are named, depend on it.
    tf.compat.v1.get_default_graph().unique_name(f"{tensor.op.name}_copy")
    return tensor


class _SharedStacks:
    """A replacement for TensorFlow's `extract_stack` that extracts the stack once for each call site outside
    TensorFlow."""

    def __init__(self, original: Callable[[int], Any]):
        self._original = original
        self._stacks: dict[tuple, Any] = {}

    def __call__(self, stacklevel: int = 1) -> Any:
        codes, position = [], []
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if not _is_inside(frame):
                # Equal code objects may come from different files; hence the id.
                codes.append(frame.f_code)
                position += [id(frame.f_code), frame.f_lasti]
            frame = frame.f_back
        key = tuple(position)
        if key not in self._stacks:
            # Skips this function and the one that selects it for the thread.
            self._stacks[key] = self._original(stacklevel + 2), codes
        return self._stacks[key][0]


class _ControlDependencies(private.ControlDependencies):
    """A subclass of TensorFlow's class that examines the ops only if one of them is stateful."""

    def __exit__(self, *error: Any) -> None:
        if not tf.executing_eagerly():
            ops = self._graph.get_operations()
            types = {op.type for op in ops[self._n_operations :]}
            if not any(map(private.is_stateful, types)):
                self._n_operations = len(ops)
        super().__exit__(*error)


class _SharedConstants:
    """A replacement for TensorFlow's `_create_graph_constant` that makes constants of TensorFlow's own integers once.

    Not shared are constants that TensorFlow's caller makes by `tf.constant`, `tf.convert_to_tensor` or `tf.stack`;
    results of functions such as `tf.rank`, which have the name of the function's scope; and constants with control
    dependencies or a device. A shared constant may have a different name than in TensorFlow's own graph.
    """

    def __init__(self, original: Callable[..., tf.Tensor]):
        self._original = original
        self._constants: dict[tuple, tf.Tensor] = {}

    def __call__(
        self, value: Any, dtype: Any, shape: Any, name: str | None, verify_shape: bool, allow_broadcast: bool
    ) -> tf.Tensor:
        arguments = value, dtype, shape, name, verify_shape, allow_broadcast
        graph = tf.compat.v1.get_default_graph()
        is_result = shape is not None or (name is not None and name.endswith("/"))
        if is_result or not (_is_integers(value) and private.is_plain(graph) and _is_internal_request()):
            return self._original(*arguments)
        key = graph, dtype, type(value), value if isinstance(value, int) else tuple(value)
        if key not in self._constants:
            self._constants[key] = self._original(*arguments)
        return self._constants[key]


def _is_integers(value: Any) -> bool:
    return type(value) is int or (type(value) in (list, tuple) and all(type(part) is int for part in value))


def _is_internal_request() -> bool:
    """Returns whether TensorFlow or TFT, not the caller, requests the constant that is being made."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") in _MAKERS:
        frame = frame.f_back
    return frame is not None and _is_inside(frame)


def _is_inside(frame: FrameType) -> bool:
    return (frame.f_globals.get("__name__") or "").startswith(_PACKAGES)


_MAKERS = frozenset([__name__, *private.CONSTANT_MAKERS])
