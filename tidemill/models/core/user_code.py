"""The code of user-defined families: loads their modules, and reports their errors with the source line."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import re
import sys
import traceback
import types
from collections.abc import Iterator

from tidemill.bundled_modules import execute, line_of
from tidemill.errors import Code, TidemillError
from tidemill.models.core.family import Network
from tidemill.runtime import Preempted

_MAX_REASON = 300
_MAX_VALUE = 200
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_GRAPH_ERROR = "Graph execution error:"
_STACK = (_GRAPH_ERROR, "Detected at node", "File ", "<stack traces", "[[{{node", "Traceback")
_MACHINE_ERRORS = (
    "ResourceExhausted",
    "RESOURCE_EXHAUSTED",
    "UnavailableError",
    "AbortedError",
    "InternalError",
    "INTERNAL:",
)
"""Names and codes of TensorFlow's and JAX's errors that the code did not cause."""


@contextlib.contextmanager
def user_errors(origin: str, where: str) -> Iterator[None]:
    """Turns errors of the user's code into `invalid-value`, with the line that failed if the traceback has it.

    What fails while a user's network is built, trained or read is the user's error, because a graph that TensorFlow
    runs has no lines of the module. Errors of the machine pass unchanged: of files, of memory and of devices.

    Args:
        origin: The name of the user's module. If it is empty, there is no user code and errors pass unchanged.
        where: The setting in the experiment that holds the module.
    """
    try:
        yield
    except (TidemillError, Preempted):
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == f"{origin}.py"), None)
        if line is None and isinstance(error, SyntaxError):
            line = error.lineno
        text = _ESCAPE.sub("", str(error))
        if line is None and (traced := re.findall(rf'File "{origin}\.py", line (\d+)', text)):
            line = int(traced[-1])  # of an op, in TensorFlow's message
        if not origin or (line is None and _is_machine_error(error)):
            raise
        below = line_of(error, f"{origin}.py")
        got = f"{type(error).__name__}: {_reason(text)}"[:_MAX_REASON] + (f" ({below})" if below else "")
        source = where if line is None else f"{where}, line {line}"
        raise TidemillError(Code.INVALID_VALUE, source, got, "correct the module") from error


def _reason(text: str) -> str:
    """Returns an error's text as one line, without the stack that TensorFlow shows of the failed op."""
    lines = [line.strip() for line in text.splitlines()]
    if _GRAPH_ERROR in lines[:1]:
        lines = [line for line in lines if line and not line.startswith(_STACK)][:1]
    return " ".join(" ".join(lines).split())


def _is_machine_error(error: BaseException) -> bool:
    """Returns whether an error may disappear when the same code runs again. Imports no framework."""
    text = f"{type(error).__name__} {str(error)[:_MAX_REASON]}"
    return isinstance(error, OSError | MemoryError) or any(word in text for word in _MACHINE_ERRORS)


@functools.lru_cache(maxsize=8)
def load_family(text: str, where: str) -> type[Network]:
    """Runs the text of a user's module and returns its `FAMILY`.

    Args:
        text: Python source.
        where: The setting in the experiment that holds it.

    Raises:
        TidemillError: `invalid-value` if the module fails, or does not define a family.
    """
    name = f"tidemill_family_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    file = f"{name}.py"
    module = types.ModuleType(name)
    # Pydantic resolves annotations through sys.modules.
    sys.modules[name] = module
    with user_errors(name, where):
        execute(text, file, module.__dict__)
    family = getattr(module, "FAMILY", None)
    if not (isinstance(family, type) and issubclass(family, Network)) or inspect.isabstract(family):
        got = "no FAMILY" if family is None else f"FAMILY = {family!r}"[:_MAX_VALUE]
        want = "define FAMILY, a subclass of tidemill.models.Network with a method logit(self, features)"
        raise TidemillError(Code.INVALID_VALUE, where, got, want)
    family.origin = name
    return family
