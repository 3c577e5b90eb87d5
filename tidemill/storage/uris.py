"""URIs: how they are joined, and which local path they name.

A local path is written plainly or as `file://`. `pkg://package/path` names a file of an installed package; the package
is located without importing it, so a package with heavy imports costs nothing.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from urllib.parse import unquote, urlparse

from tidemill.errors import Code, TidemillError

_SCHEMES = ("file", "gs", "pkg")


def join(uri: str, *parts: str) -> str:
    """Returns the URI of a path below a folder."""
    return "/".join([uri.rstrip("/") or "/", *(part.strip("/") for part in parts)]).replace("//", "/", uri == "/")


def name_of(uri: str) -> str:
    """Returns the last part of a URI."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def local_path(uri: str | os.PathLike[str]) -> Path | None:
    """Returns the local path that a plain, `file://` or `pkg://` URI names; None for an object store.

    Raises:
        TidemillError: `missing-package` if the package of a `pkg://` URI is not installed; `invalid-value` for an
            unknown scheme.
    """
    uri = os.fspath(uri)
    if "://" not in uri:
        return Path(uri)
    scheme, rest = uri.split("://", 1)
    if scheme not in _SCHEMES:
        want = "write a path, gs://bucket/object or pkg://package/path"
        raise TidemillError(Code.INVALID_VALUE, uri, f"the scheme {scheme!r}", want)
    if scheme == "file":
        return Path(unquote(urlparse(uri).path))
    if scheme == "pkg":
        package, _, inner = rest.partition("/")
        return package_folder(package) / inner
    return None


def package_folder(package: str) -> Path:
    """Returns the folder of an installed package.

    Raises:
        TidemillError: `missing-package`.
    """
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        got = f"the package {package!r}, which is not installed"
        raise TidemillError(Code.MISSING_PACKAGE, f"pkg://{package}", got, f"run pip install {package}")
    return Path(folders[0])


def with_scheme_of(uri: str, path: Path) -> str:
    """Returns the URI of a local path in the scheme of another URI."""
    if uri.startswith("pkg://"):
        package = uri.removeprefix("pkg://").partition("/")[0]
        return f"pkg://{package}/{path.relative_to(package_folder(package)).as_posix()}"
    return path.as_uri() if uri.startswith("file://") else str(path)
