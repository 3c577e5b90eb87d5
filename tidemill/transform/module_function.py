"""A user's module with a TFX-style `preprocessing_fn(inputs)`."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidemill.bundled_modules import execute, line_of
from tidemill.errors import Code, TidemillError

if TYPE_CHECKING:
    import tensorflow as tf

FILE_NAME = "transform_module.py"
_ENTRY = "preprocessing_fn"
_MAX_REASON = 300
_FUNCTION = re.compile(r"\{\{function_node [^}]+\}\} *")
_NODE = re.compile(r"\{\{node ([^}]+)\}\}")
_NOISE = (
    "Graph execution error",
    "Detected at node",
    "<stack traces",
    "[[{{node",
    "An error occurred while trying to apply",
)
_lines: dict[str, dict[str, int]] = {}
"""By the module's text, the line that made each op of its last trace. A saved graph no longer has this information."""


@dataclass(frozen=True)
class ModuleFunction:
    """The preprocessing_fn of a module. Beam's workers receive it as the module's text.

    Args:
        text: The module's source.
        shapes: The shape of a row for each raw column that the function receives as a dense tensor `[batch, *shape]`.
            Defaults to none: it receives sparse tensors.
    """

    text: str
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, tf.SparseTensor]) -> dict[str, Any]:
        """Returns the outputs of the user's function, checked to be dense with one value per row.

        Raises:
            TidemillError: `transform-failed` or `unsupported`.
        """
        try:
            outputs = _load(self.text)(
                {name: _dense(x, self.shapes[name]) if name in self.shapes else x for name, x in inputs.items()}
            )
        except KeyError as error:
            want = _cut(f"fix the transform module; inputs has {', '.join(inputs)}")
            raise _module_error(reason([error]), want, _line([error], self.text)) from error
        _remember_lines(self.text)
        if not isinstance(outputs, dict):
            raise _module_error(
                f"a {_ENTRY} that returns {type(outputs).__name__}", "return a dict of tensors by feature name"
            )
        for name, tensor in outputs.items():
            _check_output(name, tensor)
        _refuse_shared_files(self.text)
        return outputs


def _dense(column: tf.SparseTensor, shape: Sequence[int]) -> tf.Tensor:
    """Returns a column as a dense tensor `[batch, *shape]`. The graph fails on a row with more or fewer values."""
    import tensorflow as tf

    rows, size = column.dense_shape[0], math.prod(shape)
    # The first reshape checks the number of values, and to_dense that no row has more than its share.
    values = tf.reshape(column.values, tf.stack([rows * size]))
    full = tf.SparseTensor(column.indices, values, tf.stack([rows, tf.constant(size, tf.int64)]))
    return tf.reshape(tf.sparse.to_dense(full), tf.concat([[rows], tf.constant(shape, tf.int64, [len(shape)])], 0))


@contextlib.contextmanager
def user_errors(text: str | None, check_inputs: Callable[[], None]) -> Iterator[None]:
    """Converts errors that the user's code raises while it is loaded, traced or run to `transform-failed` with the
    line.

    A `TidemillError` that an engine has wrapped in its own errors is unwrapped.

    Args:
        text: The module's source. None if there is no user code; other errors then pass through.
        check_inputs: Called if no line of the module caused the error. An error that it raises replaces the first one.
    """
    try:
        yield
    except TidemillError:
        raise
    except (Exception, SystemExit) as error:
        chain = _chain(error)
        if own := next((cause for cause in chain if isinstance(cause, TidemillError)), None):
            raise own from None
        line = None if text is None else _line(chain, text)
        if line is None:
            check_inputs()
        if text is None or (line is None and _is_machine_error(chain[-1])):
            raise
        raise _module_error(reason(chain), "fix the transform module", line) from error


def load(text: str) -> Callable[[Mapping[str, Any]], Any]:
    """Executes a module's source and returns its `preprocessing_fn`.

    Raises:
        TidemillError: `transform-failed` if the module does not run or has no such function.
    """
    with user_errors(text, lambda: None):
        return _load(text)


@functools.lru_cache(maxsize=8)
def _load(text: str) -> Callable[[Mapping[str, Any]], Any]:
    namespace: dict[str, Any] = {"__name__": "transform_module", "__file__": FILE_NAME}
    execute(text, FILE_NAME, namespace)
    function = namespace.get(_ENTRY)
    if not callable(function):
        raise _module_error(f"a module without {_ENTRY}", f"define {_ENTRY}(inputs)")
    return _with_custom_config(function)


def _with_custom_config(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """Returns a function of the inputs only. A function that requires a `custom_config` gets an empty one, as from
    TFX."""
    with contextlib.suppress(ValueError):  # a callable without a signature
        parameter = inspect.signature(function).parameters.get("custom_config")
        if parameter is not None and parameter.default is parameter.empty:
            return functools.partial(function, custom_config={})
    return function


def _check_output(name: object, tensor: Any) -> None:
    import tensorflow as tf

    where = f"output {name!r}"
    if not isinstance(name, str) or not name:
        raise TidemillError(
            Code.TRANSFORM_FAILED, where, f"a key of type {type(name).__name__}", "use strings as names of outputs"
        )
    if isinstance(tensor, tf.SparseTensor | tf.RaggedTensor):
        kind = "sparse" if isinstance(tensor, tf.SparseTensor) else "ragged"
        want = "make it dense with one value per row, for example with tf.sparse.to_dense"
        raise TidemillError(Code.UNSUPPORTED, where, f"a {kind} tensor", want)
    if not tf.is_tensor(tensor):
        raise TidemillError(Code.TRANSFORM_FAILED, where, f"a {type(tensor).__name__}", "return a tensor")
    if tensor.dtype not in (tf.int64, tf.float32):
        want = "return int64 or float32, for example by tft.compute_and_apply_vocabulary or tf.cast"
        raise TidemillError(Code.UNSUPPORTED, where, f"a tensor of {tensor.dtype.name}", want)
    if tensor.shape.rank not in (1, 2) or tensor.shape[1:].as_list() not in ([], [1]):
        want = "return one value per row: shape [batch] or [batch, 1], for example by tf.squeeze(tensor, axis=1)"
        raise TidemillError(Code.UNSUPPORTED, where, f"a tensor of shape {tensor.shape}", want)


def _refuse_shared_files(text: str) -> None:
    import tensorflow as tf

    from tidemill.transform.vocabulary_clashes import clash

    if clashing := clash(tf.compat.v1.get_default_graph()):
        name, op = clashing
        got = f"a second vocabulary of vocab_filename {name!r}"
        raise _module_error(got, "use a different vocab_filename for each", _lines[text].get(op))


def _remember_lines(text: str) -> None:
    import tensorflow as tf

    lines = {}
    for op in tf.compat.v1.get_default_graph().get_operations():
        frames = [frame.lineno for frame in op.traceback or () if frame.filename == FILE_NAME]
        if frames:
            lines[op.name] = frames[-1]
    _lines.clear()
    _lines[text] = lines


def _chain(error: BaseException) -> list[BaseException]:
    """Returns the error and its causes, outermost first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _line(chain: list[BaseException], text: str) -> int | None:
    """Returns the line of the module that caused an error, from a traceback or from the name of the op that failed."""
    for error in reversed(chain):
        if isinstance(error, SyntaxError) and error.filename == FILE_NAME:
            return error.lineno
        if frames := _frames(error):
            return frames[-1]
        for node in _NODE.findall(str(error)):
            while node:
                if node in _lines.get(text, {}):
                    return _lines[text][node]
                node = node.rpartition("/")[0]
    return None


def _frames(error: BaseException) -> list[int | None]:
    """Returns the module's lines in an error's traceback."""
    return [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE_NAME]


def _is_machine_error(error: BaseException) -> bool:
    """Returns whether a file, the disk or the memory caused the error."""
    import tensorflow as tf

    return isinstance(error, OSError | MemoryError | tf.errors.ResourceExhaustedError)


def reason(chain: list[BaseException]) -> str:
    """Returns one line with the innermost error raised in the module, or the innermost of all if none was."""
    error = next((cause for cause in reversed(chain) if _frames(cause)), chain[-1])
    text = _FUNCTION.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(_NOISE)]
    below = line_of(error, FILE_NAME)
    return _cut(f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ") + (f" ({below})" if below else ""))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 1] + "…"


def _module_error(got: str, want: str, line: int | None = None) -> TidemillError:
    where = "transform_module" if line is None else f"transform_module, line {line}"
    return TidemillError(Code.TRANSFORM_FAILED, where, got, want, {"line": line})
