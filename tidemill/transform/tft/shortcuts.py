"""Shortcuts through what TensorFlow and TFT do while they make a graph; what is computed stays the same.

Imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import tensorflow as tf

from tidemill.transform.tft import private

_ONE_AT_A_TIME = threading.RLock()
"""What TFT tracks belongs to the process, and so do functions that are replaced."""
_PACKAGES = ("tensorflow.", "tensorflow_transform.", f"{__package__}.")


@contextlib.contextmanager
def quick_ops() -> Iterator[None]:
    """Lets ops that this thread makes share the note of where in Python they were made; other threads wait meanwhile.

    TensorFlow would note the stack of each, which takes a tenth of a trace. Those of one call in the caller's code,
    reached by the same calls, have the first one's.
    """
    with _ONE_AT_A_TIME, replaced(private.STACKS, "extract_stack", _SharedStacks):
        yield


@contextlib.contextmanager
def quick_trace() -> Iterator[None]:
    """Also saves what tracing a preprocessing_fn need not do, as long as this thread traces.

    - TFT passes each input on, because the function may change what it is given, as a ragged tensor does that keeps
      the row lengths which it was asked for; the same tensors in objects of their own do.
    - TensorFlow asks of each op which others have to be run before it; where no op is stateful, none has.
    - TensorFlow makes a constant of each integer that it gives to an op itself, as axes and shapes; here those of one
      value are one constant.
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
    """Replaces a function of a module or class, for this thread. Not to be used by two threads at a time.

    Args:
        owner: The module or class.
        name: The function's name there.
        make: Makes the replacement of the original.
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
    # A scope of the copy's name would get another one, and vocabularies are called after scopes.
    tf.compat.v1.get_default_graph().unique_name(f"{tensor.op.name}_copy")
    return tensor


class _SharedStacks:
    """TensorFlow's function that notes a stack, which does so once for each place outside of TensorFlow."""

    def __init__(self, original: Callable[[int], Any]):
        self._original = original
        self._noted: dict[tuple, Any] = {}

    def __call__(self, stacklevel: int = 1) -> Any:
        codes, place = [], []
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if not _is_inside(frame):
                # The same code in another file is equal to it.
                codes.append(frame.f_code)
                place += [id(frame.f_code), frame.f_lasti]
            frame = frame.f_back
        key = tuple(place)
        if key not in self._noted:
            # Without this function and the one that chooses it for the thread.
            self._noted[key] = self._original(stacklevel + 2), codes
        return self._noted[key][0]


class _ControlDependencies(private.ControlDependencies):
    """TensorFlow's, which looks at the ops only where one of them is stateful."""

    def __exit__(self, *error: Any) -> None:
        if not tf.executing_eagerly():
            ops = self._graph.get_operations()
            types = {op.type for op in ops[self._n_operations :]}
            if not any(map(private.is_stateful, types)):
                self._n_operations = len(ops)
        super().__exit__(*error)


class _SharedConstants:
    """TensorFlow's function that makes a constant of a graph, which makes those of TensorFlow's own integers once.

    A constant that TensorFlow's caller makes, by `tf.constant`, `tf.convert_to_tensor` or `tf.stack`, is his alone. So
    is the result of a function such as `tf.rank`, which has the name of the function's scope, and what waits for other
    ops or has to be somewhere. What is shared may have another name than in a graph of TensorFlow's own.
    """

    def __init__(self, original: Callable[..., tf.Tensor]):
        self._original = original
        self._made: dict[tuple, tf.Tensor] = {}

    def __call__(
        self, value: Any, dtype: Any, shape: Any, name: str | None, verify_shape: bool, allow_broadcast: bool
    ) -> tf.Tensor:
        arguments = value, dtype, shape, name, verify_shape, allow_broadcast
        graph = tf.compat.v1.get_default_graph()
        is_result = shape is not None or (name is not None and name.endswith("/"))
        if is_result or not (_is_integers(value) and private.is_plain(graph) and _is_of_tensorflow()):
            return self._original(*arguments)
        key = graph, dtype, type(value), value if isinstance(value, int) else tuple(value)
        if key not in self._made:
            self._made[key] = self._original(*arguments)
        return self._made[key]


def _is_integers(value: Any) -> bool:
    return type(value) is int or (type(value) in (list, tuple) and all(type(part) is int for part in value))


def _is_of_tensorflow() -> bool:
    """Whether it is TensorFlow or TFT that wants the constant which is being made."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") in _MAKERS:
        frame = frame.f_back
    return frame is not None and _is_inside(frame)


def _is_inside(frame: FrameType) -> bool:
    return (frame.f_globals.get("__name__") or "").startswith(_PACKAGES)


_MAKERS = frozenset([__name__, *private.CONSTANT_MAKERS])
