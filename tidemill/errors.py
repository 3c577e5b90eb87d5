"""Every way in which a user's input can be wrong, as a closed set of codes.

A `TidemillError` says where the mistake is, what was received and what would be right, in one sentence. A step that
raises one exits with code 2 and leaves nothing half-written; anything else that is raised is a defect of Tidemill.
"""

from __future__ import annotations

import difflib
import enum
import errno
import os
from collections.abc import Sequence

EXIT_CODE = 2
_REMEDIES = {
    errno.ENOSPC: "make room where outputs and temporary files (TMPDIR) are written",
    errno.EDQUOT: "make room where outputs and temporary files (TMPDIR) are written",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a path that this user may read and write",
    errno.EPERM: "choose a path that this user may read and write",
    errno.ENOTDIR: "choose a path that does not lie below a file",
    errno.EEXIST: "remove what is there, or choose another path",
    errno.EISDIR: "name a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter path",
}
_MOST_WORDS = 300


class Code(enum.Enum):
    """The error codes. The value is what users see and search for; the comment-like second part is its help line."""

    UNKNOWN_KEY = ("unknown-key", "The experiment file has a key that Tidemill does not know.")
    INVALID_VALUE = ("invalid-value", "A value in the experiment file has the wrong type or is out of range.")
    UNSUPPORTED = ("unsupported", "The request is meaningful, but this version or this engine cannot do it.")
    MISSING_FILE = ("missing-file", "A file, folder, glob or object that is named does not exist.")
    MISSING_COLUMN = ("missing-column", "A column that is named is not among the columns that the query returns.")
    MISSING_PACKAGE = ("missing-package", "A Python package that this step needs is not installed.")
    UNREADABLE_FILE = ("unreadable-file", "A file exists but is truncated, corrupt or of another format than declared.")
    MALFORMED_ROWS = ("malformed-rows", "More rows than tolerated do not parse; the quarantine file lists them.")
    OVER_BUDGET = ("over-budget", "Reading would exceed max_bytes or max_rows; nothing was read.")
    SQL_ERROR = ("sql-error", "The SQL query does not parse, bind or run.")
    SOURCE_CHANGED = ("source-changed", "An input file changed between planning and reading.")
    EMPTY_INPUT = ("empty-input", "The query returns no rows.")
    EMPTY_SPLIT = ("empty-split", "A split received no rows.")
    DUPLICATE_KEY = ("duplicate-key", "The key columns do not identify a row: a value occurs twice, or is null.")
    LABEL_NULL = ("label-null", "The label has nulls.")
    LABEL_ONE_CLASS = ("label-one-class", "The label has a single class, so nothing can be learned or measured.")
    LABEL_TYPE = ("label-type", "The label is not binary: it must hold 0 and 1, or false and true.")
    FEATURE_ALL_NULL = ("feature-all-null", "A feature has no value at all in the train split.")
    FEATURE_TYPE = ("feature-type", "A feature's column has a type that its kind or transform cannot take.")
    LEAKAGE = ("leakage", "A feature predicts the label implausibly well: it is probably known only after the label.")
    SCHEMA_ANOMALY = ("schema-anomaly", "The data contradicts the given schema.")
    DRIFT = ("drift", "A feature's distribution differs between splits or runs by more than the threshold.")
    TRANSFORM_FAILED = ("transform-failed", "The preprocessing_fn cannot be loaded, traced or run.")
    TRAINING_DIVERGED = ("training-diverged", "The loss became infinite or not a number.")
    SERVING_SKEW = ("serving-skew", "The exported model scores rows differently from the training path.")
    NOT_BLESSED = ("not-blessed", "No model passed the gates, so nothing is published.")
    NO_MODEL = ("no-model", "No published model of this name and version exists.")
    NO_RUN = ("no-run", "No recorded run matches.")
    INCOMPLETE_ARTIFACT = ("incomplete-artifact", "An artifact lacks its manifest, or its bytes do not match it.")
    UNUSABLE_PATH = ("unusable-path", "The disk is full, or a path cannot be written to or read.")
    ROOT_BUSY = ("root-busy", "Another run is using the same root folder.")

    def __init__(self, code: str, help_line: str):
        self.code = code
        self.help_line = help_line


class TidemillError(Exception):
    """A user's mistake.

    Args:
        code: One of `Code`.
        where: The place: a path in the experiment file (`features.distance.transform`), a file, a column, a split.
        got: What was received there, with the value or the number.
        want: What would be right, as an instruction.
        details: Numbers and names for programs, JSON-serialisable. Defaults to none.

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
        """The error for programs: `code`, `message`, `details`."""
        return {"code": self.code.code, "message": str(self), "details": self.details}


def suggest_name(word: str, known: Sequence[str]) -> str:
    """Returns the remedy for an unknown name: `did you mean 'x'` if a known name is similar, else the known names.

    Args:
        word: The unknown name.
        known: The names that are valid. Up to 20 of them are listed, in this order.
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}"
    return f"use one of {', '.join(known[:20])}" + (", …" if len(known) > 20 else "")


def of_path(error: Exception) -> TidemillError | None:
    """What to tell of an error of the file system that a user can mend: `unusable-path`. None of any other error.

    Libraries have errors of their own for a full disk; they are known by the words of the operating system. Tidemill's
    own that quote these words say more.
    """
    number = error.errno if isinstance(error, OSError) else None
    is_ours = type(error).__module__.startswith("tidemill.")
    if number is None and not is_ours and os.strerror(errno.ENOSPC) in str(error):
        number = errno.ENOSPC
    if number not in _REMEDIES:
        return None
    # Of a renaming the second is where the file was to go.
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    got = os.strerror(number).lower()
    words = " ".join(str(error).split())
    if name is None and words != str(OSError(number, os.strerror(number))):
        got += f" ({words if len(words) <= _MOST_WORDS else words[:_MOST_WORDS] + '…'})"
    return TidemillError(Code.UNUSABLE_PATH, str(name or "a file that is read or written"), got, _REMEDIES[number])
