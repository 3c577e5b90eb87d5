"""The code of user-defined families: loads their modules, and reports their errors with the source line."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
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


@contextlib.contextmanager
def user_errors(origin: str, where: str, *, only_user_lines: bool = False) -> Iterator[None]:
    """Turns errors of the user's code into `invalid-value` with the line that failed.

    Args:
        origin: The name of the user's module. If it is empty, there is no user code and errors pass unchanged.
        where: The setting in the experiment that holds the module.
        only_user_lines: Whether to pass on errors whose traceback has no line of the module. Defaults to False.
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
        below = line_of(error, f"{origin}.py")
        if not origin or (line is None and only_user_lines and not below):
            raise
        got = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_REASON] + (f" ({below})" if below else "")
        source = where if line is None else f"{where}, line {line}"
        raise TidemillError(Code.INVALID_VALUE, source, got, "correct the module") from error


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
