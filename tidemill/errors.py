"""The error for user errors: mistakes in a user's input.

A `TidemillError` says in one sentence where the mistake is, what was received and what to do. A step that raises one
exits with code 2 and leaves no half-written output. Any other exception is a defect of Tidemill.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Sequence

from tidemill.error_codes import Code

__all__ = ["EXIT_CODE", "Code", "Preempted", "TidemillError", "from_system_error", "suggest_name"]

EXIT_CODE = 2
_FIXES = {
    errno.ENOSPC: "free space where outputs and temporary files (TMPDIR) are written",
    errno.EDQUOT: "free space where outputs and temporary files (TMPDIR) are written",
    errno.EROFS: "choose a writable folder",
    errno.EACCES: "choose a path that this user may read and write",
    errno.EPERM: "choose a path that this user may read and write",
    errno.ENOTDIR: "choose a path that is not below a file",
    errno.EEXIST: "remove the existing file, or choose another path",
    errno.EISDIR: "name a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter path",
}
_MAX_REASON = 300


class TidemillError(Exception):
    """A mistake in a user's input.

    Args:
        code: One of `Code`.
        where: The location: a path in the experiment file (`features.distance.transform`), a file, a column, a split.
        got: What was received there, with the value or the number.
        want: What to do, as an instruction.
        details: Numbers and names for programs, JSON-serializable. Defaults to none.

    Example:
        >>> str(TidemillError(Code.MISSING_COLUMN, "label", "'late', not among a, b", "name a column of the query"))
        "label: got 'late', not among a, b; name a column of the query."
    """

    def __init__(self, code: Code, where: str, got: str, want: str, details: dict | None = None):
        self.code = code
        self.where = where
        self.got = got
        self.want = want
        self.details = details or {}
        super().__init__(f"{where}: got {got}; {want}.")

    def to_dict(self) -> dict:
        """Returns the error for programs: `code`, `message`, `details`."""
        return {"code": self.code.code, "message": str(self), "details": self.details}


class Preempted(Exception):
    """The exception for work that SIGTERM ended; its state is saved for the next attempt."""


def suggest_name(word: str, known: Sequence[str]) -> str:
    """Returns the remedy for an unknown name: `did you mean 'x'` if a known name is similar, else the known names.

    Args:
        word: The unknown name.
        known: The names that are valid. Up to 20 of them are listed, in this order.
    """
    same = [name for name in known if name.lower() == word.lower()]
    close = same or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}"
    return f"use one of {', '.join(known[:20])}" + (", …" if len(known) > 20 else "")


def from_system_error(error: Exception) -> TidemillError | None:
    """Converts a file-system error that the user can fix to `unusable-path`. Returns None for any other error.

    Libraries wrap a full disk in errors of their own, so the operating system's text is searched in messages too. A
    Tidemill exception that quotes this text is left as it is, because it says more.
    """
    number = error.errno if isinstance(error, OSError) else None
    is_ours = type(error).__module__.startswith("tidemill.")
    if number is None and not is_ours and os.strerror(errno.ENOSPC) in str(error):
        number = errno.ENOSPC
    if number not in _FIXES:
        return None
    # For a rename, `filename2` is the destination.
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    got = os.strerror(number).lower()
    message = " ".join(str(error).split())
    if name is None and message != str(OSError(number, os.strerror(number))):
        got += f" ({message if len(message) <= _MAX_REASON else message[:_MAX_REASON] + '…'})"
    return TidemillError(Code.UNUSABLE_PATH, str(name or "a file that is read or written"), got, _FIXES[number])
