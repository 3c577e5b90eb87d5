"""TFT's vocabulary nodes: what is counted, what is kept of it, and the file.

Each function does what the node of its name does in `tensorflow_transform/beam/analyzer_impls.py`. A vocabulary file
has the same bytes as Beam's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tensorflow_transform import analyzer_nodes, analyzers

from tidemill.errors import Code, TidemillError
from tidemill.transform.analysis.counts import Counts, Pieces
from tidemill.transform.analysis.information import informative
from tidemill.transform.analysis.reduction import Reduction
from tidemill.transform.analysis.tallies import CooccurrenceTally, CountTally, ScanTally, WeightTally
from tidemill.transform.analysis.tokens import Pairs, Tokens, as_bytes, blob, dummy
from tidemill.transform.analysis.vocabulary_file import text_query, write_vocabulary
from tidemill.transform.apply.rowwise import substitution
from tidemill.transform.rows.rows import Rows
from tidemill.transform.tft.trace import Trace

__all__ = ["Tokens", "count", "merge", "order_and_write", "prune", "vocabulary_reduction"]

_Ordering = analyzers._VocabOrderingType
_INFORMATIVE = (_Ordering.MUTUAL_INFORMATION, _Ordering.WEIGHTED_MUTUAL_INFORMATION)
_RESERVED_COUNT = -1


def vocabulary_reduction(operation: Any, trace: Trace, rows: Rows, store: Counts) -> Reduction:
    """What counts the tokens of a vocabulary.

    Where the tokens are provably the values of one Parquet column, SQL counts them, and otherwise batches do.

    Args:
        operation: TFT's `OperationNode` of a `VocabularyAccumulate`.
        trace: Where the operation is from.
        rows: What to count.
        store: Where to count.

    Raises:
        TidemillError: `unsupported` for weights by label, which only TFT's `vocab_map` makes.
    """
    definition = operation.operation_def
    (source,) = operation.inputs
    tensors = source.parent_operation.operation_def.tensors
    token = "BLOB" if definition.input_dtype == "string" else "BIGINT"
    ordering = definition.vocab_ordering_type
    if ordering == _Ordering.FREQUENCY:
        is_filtered = trace.token_filter.get(tensors[0].name)
        # Of tokens that TFT did not tell of nothing is known.
        scan = None if is_filtered is None else _scan(tensors[0], is_filtered, trace, rows, store)
        return scan or CountTally(store.pieces(token, "BIGINT", ordered=False), tensors, bool(is_filtered))
    if ordering == _Ordering.WEIGHTED_FREQUENCY:
        is_float = tensors[1].dtype.is_floating
        pieces = store.pieces(token, "DOUBLE" if is_float else "BIGINT", ordered=is_float)
        return WeightTally(pieces, tensors)
    if ordering in _INFORMATIVE:
        return CooccurrenceTally(store.pieces(token, "DOUBLE", ordered=True), tensors)
    got = "a vocabulary with weights by label"
    raise TidemillError(Code.UNSUPPORTED, "preprocessing_fn", got, "use the beam engine")


def merge(definition: analyzer_nodes.VocabularyMerge, result: Tokens | Pieces) -> Tokens:
    """Tokens with their metric: a count, a sum of weights, or mutual information.

    Args:
        definition: TFT's node.
        result: The reduction's result.
    """
    if definition.vocab_ordering_type not in _INFORMATIVE:
        return result
    return informative(result, definition.use_adjusted_mutual_info, definition.min_diff_from_avg)


def prune(definition: analyzer_nodes.VocabularyPrune, tokens: Tokens) -> Tokens:
    """The tokens that reach the thresholds and are among the first, of all or of their key.

    Args:
        definition: TFT's node.
        tokens: All tokens.
    """
    if definition.key_fn and tokens.is_float:
        # The dummy's count is written as an integer, also among floats.
        tokens = tokens.with_text()
    kept = _above(tokens, definition.frequency_threshold, definition.informativeness_threshold)
    standard = tokens
    if definition.top_k is not None:
        first = f"ORDER BY {tokens.largest_first} LIMIT {definition.top_k}"
        standard = tokens.derived(f"SELECT {tokens.columns} FROM {tokens.table} WHERE {kept} {first}")
        if not len(standard):
            standard = _only_dummy(tokens, definition.input_dtype)
    elif kept != "true":
        standard = tokens.derived(f"SELECT {tokens.columns} FROM {tokens.table} WHERE {kept}")
    if not definition.key_fn:
        return standard
    kept = _above(tokens, definition.coverage_frequency_threshold, definition.coverage_informativeness_threshold)
    covered = f"SELECT {tokens.columns} FROM {tokens.table} WHERE {kept}"
    if definition.coverage_top_k is not None:
        keyed = _keyed(tokens, kept, definition.key_fn)
        place = f"row_number() OVER (PARTITION BY key ORDER BY {tokens.largest_first})"
        ranked = f"SELECT {tokens.columns}, {place} AS place FROM {keyed}"
        covered = f"SELECT {tokens.columns} FROM ({ranked}) WHERE place <= {definition.coverage_top_k}"
    more = [name for name in tokens.more if name == "text"]
    names = ", ".join(["token", "metric", *more])
    table = tokens.store.create(f"SELECT {names} FROM {standard.table} UNION SELECT {names} FROM ({covered})")
    return Tokens(tokens.store, table, is_integer=tokens.is_integer, is_float=tokens.is_float, more=more)


def count(definition: analyzer_nodes.VocabularyCount, tokens: Tokens | Pairs) -> np.int64:
    """The number of tokens in the file: an empty vocabulary has one.

    Args:
        definition: TFT's node.
        tokens: The tokens.
    """
    del definition
    return np.int64(max(len(tokens), 1))


def order_and_write(
    definition: analyzer_nodes.VocabularyOrderAndWrite,
    tokens: Tokens | Pairs,
    path: Path,
    reserved_tokens: Sequence[bytes] | np.ndarray | None = None,
) -> Path:
    """Writes a vocabulary file: the reserved tokens, then the others by metric and by their bytes, both descending.

    Args:
        definition: TFT's node; says whether to order by hash, and whether to write metrics.
        tokens: The tokens.
        path: The file.
        reserved_tokens: Tokens to put first. Defaults to none.

    Returns:
        The file.
    """
    reserved = None if reserved_tokens is None else [as_bytes(token) for token in reserved_tokens]
    line = _with_metric if definition.store_frequency else lambda metric, token: token
    head = [line(_RESERVED_COUNT, token) for token in reserved or ()]
    store, query = None, ""
    if isinstance(tokens, Pairs):
        head += [line(*pair) for pair in _ordered(tokens, definition, reserved)]
    else:
        store, query = tokens.store, _ordered_query(tokens, definition, reserved)
    if not write_vocabulary(path, definition.file_format, head, store, query):
        write_vocabulary(path, definition.file_format, [line(*dummy(definition.input_dtype))], None, "")
    return path


def _scan(tokens: Any, is_filtered: bool, trace: Trace, rows: Rows, store: Counts) -> ScanTally | None:
    scans = {name: scan for name in rows.specs if (scan := rows.scan(name)) is not None}
    found = substitution(trace, tokens, scans) if scans else None
    return None if found is None else ScanTally(store, scans[found.column], found, is_filtered)


def _above(tokens: Tokens, least_frequency: float, least_information: float) -> str:
    """SQL of TFT's thresholds."""
    if not (least_frequency > 0 or least_information > float("-inf")):
        return "true"
    bounds = {"metric": least_frequency}
    if "frequency" in tokens.more:
        bounds = {"frequency": least_frequency, "metric": least_information}
    # NaN is larger than all numbers in SQL, and in Python not larger than any.
    return " AND ".join(f"{name} >= '{float(b)!r}'::DOUBLE AND NOT isnan({name}::DOUBLE)" for name, b in bounds.items())


def _only_dummy(tokens: Tokens, input_dtype: str) -> Tokens:
    metric, token = dummy(input_dtype)
    token_sql = token.decode() if tokens.is_integer else blob(token)
    table = tokens.store.create(f"SELECT {token_sql} AS token, {metric}::BIGINT AS metric, '{metric}' AS text")
    return Tokens(tokens.store, table, is_integer=tokens.is_integer, more=("text",))


def _keyed(tokens: Tokens, kept: str, key_fn: Callable[[bytes], Any]) -> str:
    """A table of the tokens with the number of each one's key."""
    store, numbers = tokens.store, {}
    table = store.create(f"SELECT {tokens.columns}, 0::BIGINT AS key FROM {tokens.table} WHERE false")
    for batch in store.stream(f"SELECT {tokens.columns}, {tokens.written} AS w FROM {tokens.table} WHERE {kept}"):
        keys = [numbers.setdefault(key_fn(token), len(numbers)) for token in batch["w"].to_pylist()]
        store.insert(table, pa.Table.from_batches([batch]).drop("w").append_column("key", pa.array(keys, pa.int64())))
    return table


def _ordered_query(tokens: Tokens, definition: Any, reserved: Sequence[bytes] | None) -> str:
    written = tokens.written
    expression = f"encode({tokens.metric_text} || ' ') || {written}" if definition.store_frequency else written
    where = f"WHERE {written} NOT IN ({', '.join(map(blob, reserved))})" if reserved else ""
    order = f"sha1({written})" if definition.fingerprint_shuffle else tokens.largest_first
    return text_query(expression, f"FROM {tokens.table} {where} ORDER BY {order}", definition.file_format)


def _ordered(pairs: Pairs, definition: Any, reserved: Sequence[bytes] | None) -> list[tuple[Any, bytes]]:
    if definition.input_is_sorted and reserved is None:
        return pairs.items
    taken = set(reserved or ())
    items = [pair for pair in pairs.items if pair[1] not in taken]
    if definition.fingerprint_shuffle:
        return sorted(items, key=lambda pair: hashlib.sha1(pair[1]).digest())
    return sorted(items, reverse=True)


def _with_metric(metric: Any, token: bytes) -> bytes:
    return f"{metric} ".encode() + token
