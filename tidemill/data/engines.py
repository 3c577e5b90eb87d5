"""The engines that read sources, by the name in `source.engine`."""

from __future__ import annotations

from tidemill.data.duckdb_engine import DuckDBEngine
from tidemill.data.source_engine import SourceEngine
from tidemill.errors import Code, TidemillError

ENGINES: dict[str, type[SourceEngine]] = {"duckdb": DuckDBEngine}
"""The engines that this version has."""


def engine_of(name: str, section: str = "source") -> SourceEngine:
    """Returns the engine with this name.

    Args:
        name: The setting `engine` of a source.
        section: The source's section, for the error. Defaults to `source`.

    Raises:
        TidemillError: `unsupported` for an engine that this version does not have.
    """
    if name not in ENGINES:
        got, want = repr(name), f"use {' or '.join(sorted(ENGINES))}; BigQuery is not in this version"
        raise TidemillError(Code.UNSUPPORTED, f"{section}.engine", got, want)
    return ENGINES[name]()
