"""The engines that read sources, by the name in `source.engine`. An engine is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tidemill.errors import Code, TidemillError

if TYPE_CHECKING:
    from tidemill.data.source_engine import SourceEngine


def _duckdb() -> SourceEngine:
    from tidemill.data.duckdb_engine import DuckDBEngine

    return DuckDBEngine()


ENGINES: dict[str, Callable[[], SourceEngine]] = {"duckdb": _duckdb}
"""Functions that return the engines of this version."""


def check_engine(name: str, section: str = "source") -> None:
    """Checks that this version has an engine.

    Args:
        name: The setting `engine` of a source.
        section: The source's section, for the error. Defaults to `source`.

    Raises:
        TidemillError: `unsupported`.
    """
    if name not in ENGINES:
        got, want = repr(name), f"use {' or '.join(sorted(ENGINES))}; BigQuery is not in this version"
        raise TidemillError(Code.UNSUPPORTED, f"{section}.engine", got, want)


def engine_of(name: str) -> SourceEngine:
    """Returns the engine with this name.

    Raises:
        TidemillError: `unsupported` for an engine that this version does not have.
    """
    check_engine(name)
    return ENGINES[name]()
