"""The versions of installed packages."""

from __future__ import annotations

import functools
import importlib.metadata

_OTHER_NAMES = {"tensorflow": ("tensorflow-cpu",)}
"""Distributions with the same modules. The CPU image has the smaller one."""


@functools.cache
def installed_version(distribution: str) -> str:
    """Returns the version of an installed distribution. Reading it parses the whole metadata: cached.

    Args:
        distribution: Its name, such as `tensorflow`, under which another build of it, such as `tensorflow-cpu`, is
            found too.

    Raises:
        importlib.metadata.PackageNotFoundError: It is not installed.
    """
    for name in (distribution, *_OTHER_NAMES.get(distribution, ())):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise importlib.metadata.PackageNotFoundError(distribution)
