r"""The experiment as a parameter of a pipeline: a text that arrives as it was written.

On the way to a step Kubeflow replaces `[[CurrentTime]]` and the like, Argo `{{workflow.name}}` and the like, and
Kubernetes `$$` by `$` and `$(NAME)` by a variable in a container's arguments. A pod whose description has more than
128 KiB fails. So the text is JSON in which the first character of such a sequence is written as `\u005b`, `\u007b` or
`\u0024`; a long text is kept below the root and travels as its URI; and a digest of the content shows whether the text
arrived unchanged. A text without a digest is accepted.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tidemill import fingerprint, storage
from tidemill.errors import Code, TidemillError

DIGEST = "digest"
MAX_BYTES = 115_000
"""Longest text that travels as a parameter, in the bytes of `parameter_bytes`. A pod has its own description, with its
code and its parameters, in a variable of at most 128 KiB. Argo would move a longer one to a ConfigMap, which Kubeflow's
role for Argo does not allow."""
FOLDER = "experiments"
_SUBSTITUTED = re.compile(r"\$(?=[$(])|\{(?=\{)|\[(?=\[)")
_ESCAPED_BY_GO = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})
_URI = re.compile(r"(gs://|file://|/)\S+")


def encode(data: dict[str, Any]) -> str:
    """Returns an experiment's data as JSON text with a digest, in which nothing is replaced on the way to a step.

    Args:
        data: JSON-serializable data of an experiment with all files inlined.
    """
    text = json.dumps({DIGEST: fingerprint.of_json(data), **data}, indent=1, ensure_ascii=False)
    # These sequences occur only inside of strings, where an escape sequence stands for the same character. A list that
    # starts with a list has a line break after its first bracket.
    return _SUBSTITUTED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def as_parameter(text: str, root: str) -> str:
    """Returns the value of a pipeline's parameter: the text, or the URI of a file below the root if the text is long.

    Args:
        text: The experiment's text.
        root: URI of the root, below which a long text is written.
    """
    if parameter_bytes(text) <= MAX_BYTES:
        return text
    uri = storage.join(root, FOLDER, f"{fingerprint.of_json(text)}.json")
    storage.write_text(uri, text)
    return uri


def parameter_bytes(text: str) -> int:
    """Returns the size of a text in the description of a step's pod.

    It is a JSON string there, inside of one with the launcher's command, inside of one with the patch of the pod. Each
    level doubles the backslashes of the level before.
    """
    command = json.dumps(json.dumps(text, ensure_ascii=False), ensure_ascii=False).translate(_ESCAPED_BY_GO)
    return len(json.dumps(command, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def read_parameter(value: str) -> str:
    """Returns the text that a parameter's value is or names.

    Args:
        value: An experiment's text, or the URI of a file with one.

    Raises:
        TidemillError: `missing-file` or `unreadable-file` for a URI.
    """
    uri = value.strip()
    if not _URI.fullmatch(uri):
        return value
    try:
        return storage.read_text(uri)
    except UnicodeDecodeError as error:
        want = "name a file with the text that tidemill validate --resolved prints"
        raise TidemillError(Code.UNREADABLE_FILE, "experiment", f"{uri!r}, which is not UTF-8 text", want) from error
    except OSError as error:
        want = "name a file that the steps can read, or give the experiment's text"
        raise TidemillError(Code.MISSING_FILE, "experiment", f"{uri!r}, which cannot be read", want) from error


def without_digest(data: dict[str, Any]) -> dict[str, Any]:
    """Returns an experiment's data without its digest, which is compared with the data.

    Raises:
        TidemillError: `invalid-value` if the data has another digest.
    """
    if DIGEST not in data:
        return data
    rest = {key: value for key, value in data.items() if key != DIGEST}
    if data[DIGEST] != fingerprint.of_json(rest):
        got = "a text that was changed after tidemill validate --resolved wrote it"
        want = f"give the text as it was written; if you changed it on purpose, delete its entry {DIGEST!r}"
        raise TidemillError(Code.INVALID_VALUE, f"experiment.{DIGEST}", got, want)
    return rest
