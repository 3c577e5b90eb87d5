"""The check of a query's text, which needs no table, and the error of a query that DuckDB rejects."""

from __future__ import annotations

import re

import duckdb

from tidemill.duckdb_session import first_line
from tidemill.errors import Code, TidemillError, suggest_name
from tidemill.experiment.source import Source

_NO_TABLE = re.compile(r"Table with name (\S+) does not exist")


def sql_error(error: duckdb.Error, source: Source, where: str = "source") -> TidemillError:
    """Returns the error for a query that DuckDB rejects.

    Args:
        error: DuckDB's error.
        source: The source with the query.
        where: The source's place in the experiment. Defaults to `source`.
    """
    message = first_line(error)
    if table := _NO_TABLE.search(message):
        # DuckDB proposes tables of its own.
        want = f"{suggest_name(table[1], list(source.tables))}, as source.tables names it"
        return TidemillError(Code.SQL_ERROR, f"{where}.sql", f"no table {table[1]!r}", want)
    return TidemillError(Code.SQL_ERROR, f"{where}.sql", message, "correct the query")


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
    return _without_end(statements[0].query), dict(source.params)


def _without_end(query: str) -> str:
    """Returns one statement without its semicolons and what follows them, and with a line break after a comment.

    So it can stand in brackets.
    """
    tokens = [start for start, kind in duckdb.tokenize(query) if kind is duckdb.token_type.operator]
    ends = [start for start in tokens if query[start] == ";"]
    return query[: ends[0]] if ends else f"{query}\n"
