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
    if columns:
        values = f"unnest([{', '.join(columns.values())}])"
        connection.execute(f"""INSERT INTO tidemill.null_words
            SELECT {literal(table)}, {literal(list(columns))}[index + 1], text, n / rows FROM (
                SELECT index, text, count(*) AS n, sum(count(*)) OVER (PARTITION BY index) AS rows FROM (
                    SELECT unnest(range({len(columns)})) AS index, {values} AS text FROM {relation}
                ) GROUP BY index, text)
            WHERE text IN ({", ".join(map(literal, words))}) AND n >= {FREQUENT} * rows""")


def read(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the share of the rows with a frequent null word, by table, column and word."""
    connection.execute("""CREATE TABLE IF NOT EXISTS tidemill.null_words
        ("table" VARCHAR, "column" VARCHAR, word VARCHAR, share DOUBLE)""")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for table, column, word, share in connection.execute("FROM tidemill.null_words ORDER BY ALL").fetchall():
        found.setdefault(table, {}).setdefault(column, {})[word] = share
    return found
