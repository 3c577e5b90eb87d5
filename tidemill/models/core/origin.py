"""What goes wrong in a family of the user's own is told with the line of its module."""

from __future__ import annotations

import contextlib
import hashlib
import traceback
from collections.abc import Iterator

from tidemill.errors import Code, TidemillError
from tidemill.runtime import Preempted

_MAX_REASON = 300


def module_name(text: str) -> str:
    """What a module with this text is called."""
    return f"tidemill_family_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def own_errors(origin: str, where: str, *, only_its_lines: bool = False) -> Iterator[None]:
    """Turns what the user's code raises into `invalid-value` with its line.

    Args:
        origin: The module's name; empty where there is no user's code: errors then pass.
        where: The place in the experiment.
        only_its_lines: Whether errors pass in whose traceback the module has no line.
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
        if not origin or (line is None and only_its_lines):
            raise
        got = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_REASON]
        place = where if line is None else f"{where}, line {line}"
        raise TidemillError(Code.INVALID_VALUE, place, got, "mend the module") from error
