"""A TFX-style module with a `preprocessing_fn(inputs)` of the user, taken as it is."""

from __future__ import annotations

import contextlib
import functools
import linecache
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
"""By the module's text, for each op of its last trace the line that made it. A saved graph no longer knows it."""


@dataclass(frozen=True)
class ModuleFunction:
    """The preprocessing_fn of a module. Travels to Beam's workers as the module's text.

    Args:
        text: The module's source.
    """

    text: str

    def __call__(self, inputs: Mapping[str, tf.SparseTensor]) -> dict[str, Any]:
        """What the user's function returns, checked to be dense with one value a row.

        Raises:
            TidemillError: `transform-failed` or `unsupported`.
        """
        try:
            outputs = _load(self.text)(dict(inputs))
        except KeyError as error:
            want = _cut(f"mend the transform module; inputs has {', '.join(inputs)}")
            raise _failed(reason([error]), want, _line([error], self.text)) from error
        _remember_lines(self.text)
        if not isinstance(outputs, dict):
            raise _failed(f"{_ENTRY} returning {type(outputs).__name__}", "return a dict of tensors by feature name")
        for name, tensor in outputs.items():
            _check_output(name, tensor)
        _refuse_shared_files(self.text)
        return outputs


@contextlib.contextmanager
def user_errors(text: str | None, check_inputs: Callable[[], None]) -> Iterator[None]:
    """Turns what the user's code raises, while loaded, traced or run, into `transform-failed` with the code's line.

    An engine may wrap a `TidemillError` in errors of its own; it is taken out again.

    Args:
        text: The module's source. None where there is no user's code: other errors then pass.
        check_inputs: Called where no line of the module is to blame. What it raises is told instead.
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
        if text is None or (line is None and _is_of_the_machine(chain[-1])):
            raise
        raise _failed(reason(chain), "mend the transform module", line) from error


def load(text: str) -> Callable[[Mapping[str, Any]], Any]:
    """Executes a module's source and takes its `preprocessing_fn`.

    Raises:
        TidemillError: `transform-failed` when it does not run or has no such function.
    """
    with user_errors(text, lambda: None):
        return _load(text)


@functools.lru_cache(maxsize=8)
def _load(text: str) -> Callable[[Mapping[str, Any]], Any]:
    # Tracebacks and inspect.getsource find the source there.
    linecache.cache[FILE_NAME] = (len(text), None, text.splitlines(keepends=True), FILE_NAME)
    namespace = {"__name__": "transform_module", "__file__": FILE_NAME}
    exec(compile(text, FILE_NAME, "exec"), namespace)
    function = namespace.get(_ENTRY)
    if not callable(function):
        raise _failed(f"a module without {_ENTRY}", f"define {_ENTRY}(inputs)")
    return function


def _check_output(name: object, tensor: object) -> None:
    import tensorflow as tf

    where = f"output {name!r}"
    if not isinstance(name, str) or not name:
        raise TidemillError(
            Code.TRANSFORM_FAILED, where, f"a key of type {type(name).__name__}", "name outputs by strings"
        )
    if isinstance(tensor, tf.SparseTensor | tf.RaggedTensor):
        kind = "sparse" if isinstance(tensor, tf.SparseTensor) else "ragged"
        want = "make it dense with one value a row, for example with tf.sparse.to_dense"
        raise TidemillError(Code.UNSUPPORTED, where, f"a {kind} tensor", want)
    if not tf.is_tensor(tensor):
        raise TidemillError(Code.TRANSFORM_FAILED, where, f"a {type(tensor).__name__}", "return a tensor")
    if tensor.dtype not in (tf.int64, tf.float32):
        want = "return int64 or float32: ids by tft.compute_and_apply_vocabulary, numbers by tf.cast"
        raise TidemillError(Code.UNSUPPORTED, where, f"a tensor of {tensor.dtype.name}", want)
    if tensor.shape.rank not in (1, 2) or tensor.shape[1:].as_list() not in ([], [1]):
        want = "return one value a row: shape [batch] or [batch, 1], for example by tf.squeeze(tensor, axis=1)"
        raise TidemillError(Code.UNSUPPORTED, where, f"a tensor of shape {tensor.shape}", want)


def _refuse_shared_files(text: str) -> None:
    import tensorflow as tf

    from tidemill.transform.vocabulary_clashes import clash

    if found := clash(tf.compat.v1.get_default_graph()):
        name, op = found
        got = f"a second vocabulary of vocab_filename {name!r}"
        raise _failed(got, "give each its own vocab_filename", _lines[text].get(op))


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
    """The error and what it came from, outermost first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _line(chain: list[BaseException], text: str) -> int | None:
    """The line of the module where an error began: from a traceback, or by the op that failed."""
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
    """The module's lines through which an error came."""
    return [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE_NAME]


def _is_of_the_machine(error: BaseException) -> bool:
    """Whether a file, the disk or the memory is what is wrong."""
    import tensorflow as tf

    return isinstance(error, OSError | MemoryError | tf.errors.ResourceExhaustedError)


def reason(chain: list[BaseException]) -> str:
    """In one line the innermost error that left the module, or where none did the innermost of all."""
    error = next((cause for cause in reversed(chain) if _frames(cause)), chain[-1])
    text = _FUNCTION.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(_NOISE)]
    return _cut(f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": "))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 1] + "…"


def _failed(got: str, want: str, line: int | None = None) -> TidemillError:
    where = "transform_module" if line is None else f"transform_module, line {line}"
    return TidemillError(Code.TRANSFORM_FAILED, where, got, want, {"line": line})
