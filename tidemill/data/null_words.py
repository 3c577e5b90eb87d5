"""Default null words in text columns: a word such as `NA` may be a value there, so its share is counted."""

from __future__ import annotations

import duckdb

from tidemill.duckdb_session import literal

FREQUENT = 0.01
"""Share of a column's rows from which on a default null word is reported."""


def count(
    connection: duckdb.DuckDBPyConnection, table: str, relation: str, columns: dict[str, str], words: list[str]
) -> None:
    """Counts the null words of text columns, for `read`.

    Args:
        connection: The database.
        table: The table's name.
        relation: A relation with the columns, for a FROM clause.
        columns: The expression of each column's text as it is written.
        words: The null words.
    """
    connection.execute("""CREATE TABLE IF NOT EXISTS tidemill.null_words
        ("table" VARCHAR, "column" VARCHAR, word VARCHAR, share DOUBLE)""")
    if not columns:
        return
    counts = ", ".join(f"count(*) FILTER (text = {literal(word)})" for word in words)
    query = f"""SELECT index, count(*), {counts} FROM (
        SELECT unnest(range({len(columns)})) AS index, unnest([{", ".join(columns.values())}]) AS text FROM {relation})
        GROUP BY index"""
    names = list(columns)
    for index, rows, *found in connection.execute(query).fetchall():
        for word, number in zip(words, found, strict=True):
            if number >= FREQUENT * rows:
                values = [table, names[index], word, number / rows]
                connection.execute("INSERT INTO tidemill.null_words VALUES (?, ?, ?, ?)", values)


def read(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the share of the rows with a frequent null word, by table, column and word."""
    connection.execute("""CREATE TABLE IF NOT EXISTS tidemill.null_words
        ("table" VARCHAR, "column" VARCHAR, word VARCHAR, share DOUBLE)""")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for table, column, word, share in connection.execute("FROM tidemill.null_words ORDER BY ALL").fetchall():
        found.setdefault(table, {}).setdefault(column, {})[word] = share
    return found
