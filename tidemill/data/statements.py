"""The check of a query's text, which needs no table."""

from __future__ import annotations

import duckdb

from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.experiment.source import Source


def check_statement(
    connection: duckdb.DuckDBPyConnection, query: str, source: Source, where: str = "source"
) -> tuple[str, dict]:
    """Checks that the query is one SELECT and that `params` are exactly its parameters.

    Args:
        connection: A database. The tables need not be in it.
        query: The query.
        source: The source with the query.
        where: The source's place in the experiment, for errors. Defaults to `source`.

    Returns:
        The query and the values of its parameters.

    Raises:
        TidemillError: `sql-error` or `invalid-value`.
    """
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(s.type.name for s in statements) or "nothing"
        got = f"{len(statements)} statements ({kinds})"
        raise TidemillError(Code.SQL_ERROR, f"{where}.sql", got, "write one SELECT")
    used = set(statements[0].named_parameters)
    for param in source.params:
        if param not in used:
            want = suggest_name(param, sorted(used)) if used else f"remove it, or write ${param} in the query"
            got = "a parameter that the query does not use"
            raise TidemillError(Code.INVALID_VALUE, f"{where}.params.{param}", got, want)
    if missing := sorted(used - set(source.params)):
        got = f"no value for ${missing[0]}, which the query uses"
        raise TidemillError(Code.INVALID_VALUE, f"{where}.params", got, f"add {missing[0]}: …")
    return statements[0].query, dict(source.params)
