"""The file of a given schema: read, and checked before a step uses it."""

from __future__ import annotations

from tidemill import storage
from tidemill.errors import Code, TidemillError
from tidemill.experiment.source import Validation

_WHERE = "validation.schema"


def read_schema(validation: Validation) -> str | None:
    """Returns the text of the given schema; None if the experiment gives none.

    Raises:
        TidemillError: `missing-file`; `unreadable-file` if it is not text; `invalid-value` or `unsupported` if it
            cannot be obeyed.
    """
    uri = validation.schema_
    if uri is None:
        return None
    if not storage.exists(uri):
        got = f"{uri!r}, which does not exist"
        raise TidemillError(Code.MISSING_FILE, _WHERE, got, "name a schema.pbtxt")
    try:
        text = storage.read_text(uri)
    except UnicodeDecodeError as error:
        got, want = f"{uri!r}, which is not UTF-8 text (byte {error.start})", "name a schema.pbtxt, not a binary schema"
        raise TidemillError(Code.UNREADABLE_FILE, _WHERE, got, want) from error
    # The import is slow, and the package is not part of an installation without the extra `steps`.
    from tidemill.given_schema import schema_text

    schema_text.environment(schema_text.parse(text), validation.environment)
    return text
