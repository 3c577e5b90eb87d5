"""Counting vocabularies while the preprocessing_fn is still being traced. Imports TensorFlow.

Tracing is Python's work, on one thread, and a column's distinct values can be counted as soon as it is known that a
vocabulary wants them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tidemill.transform.analysis.counts import Counts
from tidemill.transform.analysis.tallies import grouped
from tidemill.transform.apply.facts import Elements, Facts, Level
from tidemill.transform.rows.rows import Rows
from tidemill.transform.tft.tracing import OnTokens

_MOST_ROWS = 10_000_000
"""Of more rows the values are counted in one go with what becomes of them, which takes less memory."""


def counts_ahead(rows: Rows, counts: Counts) -> OnTokens | None:
    """What a `Trace` is to tell of its tokens, so that their columns are counted.

    Args:
        rows: What is analysed.
        counts: Where to count.

    Returns:
        None where counting ahead does not help: with one thread, with more than 10 million rows, and with spans, for
        which few of the files may have to be read.
    """
    if counts.threads < 2 or counts.per_file or sum(file.rows for file in rows.files) > _MOST_ROWS:
        return None
    files = [file.index for file in rows.files]
    facts: list[Facts] = []

    def on_tokens(inputs: Mapping[str, Any], tokens: tf.Tensor) -> None:
        if not facts:
            flat = {name: value for name, value in inputs.items() if rows.is_flat(name)}
            facts.append(Facts(tokens.graph, flat, is_width_one=False))
        # Of what the graph captures from now on nothing is known, nor of the graph of a branch or a loop.
        fact = facts[0].of(tokens) if tokens.graph is facts[0].graph else None
        if isinstance(fact, Elements) and fact.level is Level.RAW and len(fact.columns) == 1:
            (column,) = fact.columns
            if scan := rows.scan(column):
                counts.begin(grouped(scan, files))

    return on_tokens
