"""TFT's vocabulary nodes: merging, pruning, ordering and writing tokens, and the choice of their reduction.

Each function named like a node does what the node does in `tensorflow_transform/beam/analyzer_impls.py`. A vocabulary
file has the same bytes as Beam's.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
from tensorflow_transform import analyzer_nodes, analyzers

from tidemill.errors import Code, TidemillError
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.mutual_information import vocabulary_by_information
from tidemill.transform.analysis.partial_counts import PartialCounts
from tidemill.transform.analysis.reduction import Reduction
from tidemill.transform.analysis.scan_tally import ScanTally
from tidemill.transform.analysis.tallies import CooccurrenceTally, CountTally, WeightTally
from tidemill.transform.analysis.vocabulary_table import VocabularyPairs, VocabularyTable, as_bytes, blob, dummy
from tidemill.transform.apply.substitution import substitution
from tidemill.transform.rows.row_source import RowSource
from tidemill.transform.tft.trace import Trace

__all__ = ["VocabularyTable", "merge", "order_and_write", "prune", "vocabulary_reduction", "vocabulary_size"]

_Ordering = analyzers._VocabOrderingType
_INFORMATIVE = (_Ordering.MUTUAL_INFORMATION, _Ordering.WEIGHTED_MUTUAL_INFORMATION)
_RESERVED_COUNT = -1


def vocabulary_reduction(operation: Any, trace: Trace, rows: RowSource, store: CountStore) -> Reduction:
    """Returns the reduction that counts the tokens of a vocabulary.

    SQL counts the tokens if they are provably the values of one Parquet column. Otherwise batches are fed through the
    graph.

    Args:
        operation: TFT's `OperationNode` of a `VocabularyAccumulate`.
        trace: The trace of the operation.
        rows: The rows to count.
        store: The store that counts.

    Raises:
        TidemillError: `unsupported` for weights by label, which only TFT's `vocab_map` uses.
    """
    definition = operation.operation_def
    (source,) = operation.inputs
    tensors = source.parent_operation.operation_def.tensors
    token = "BLOB" if definition.input_dtype == "string" else "BIGINT"
    ordering = definition.vocab_ordering_type
    if ordering == _Ordering.FREQUENCY:
        is_filtered = trace.token_filter.get(tensors[0].name)
        # Nothing is known about tokens that the trace did not report.
        scan = None if is_filtered is None else _scan(tensors[0], is_filtered, trace, rows, store)
        return scan or CountTally(PartialCounts(store, token, "BIGINT", ordered=False), tensors, bool(is_filtered))
    if ordering == _Ordering.WEIGHTED_FREQUENCY:
        is_float = tensors[1].dtype.is_floating
        partials = PartialCounts(store, token, "DOUBLE" if is_float else "BIGINT", ordered=is_float)
        return WeightTally(partials, tensors)
    if ordering in _INFORMATIVE:
        return CooccurrenceTally(PartialCounts(store, token, "DOUBLE", ordered=True), tensors)
    got = "a vocabulary with weights by label"
    raise TidemillError(Code.UNSUPPORTED, "preprocessing_fn", got, "use the beam engine")


def merge(definition: analyzer_nodes.VocabularyMerge, result: VocabularyTable | PartialCounts) -> VocabularyTable:
    """Returns all tokens with their metric: a count, a sum of weights, or mutual information.

    Args:
        definition: TFT's node.
        result: The reduction's result.
    """
    if isinstance(result, VocabularyTable):
        return result
    return vocabulary_by_information(result, definition.use_adjusted_mutual_info, definition.min_diff_from_avg)


def prune(definition: analyzer_nodes.VocabularyPrune, tokens: VocabularyTable) -> VocabularyTable:
    """Returns the tokens that reach the thresholds and are among the `top_k` largest, overall or of their key.

    Args:
        definition: TFT's node.
        tokens: All tokens.
    """
    if definition.key_fn and tokens.is_float:
        # The dummy's count is written as an integer, even among floats.
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
        position = f"row_number() OVER (PARTITION BY key ORDER BY {tokens.largest_first})"
        ranked = f"SELECT {tokens.columns}, {position} AS position FROM {keyed}"
        covered = f"SELECT {tokens.columns} FROM ({ranked}) WHERE position <= {definition.coverage_top_k}"
    extra_columns = [name for name in tokens.extra_columns if name == "text"]
    names = ", ".join(["token", "metric", *extra_columns])
    table = tokens.store.create(f"SELECT {names} FROM {standard.table} UNION SELECT {names} FROM ({covered})")
    return VocabularyTable(
        tokens.store, table, is_integer=tokens.is_integer, is_float=tokens.is_float, extra_columns=extra_columns
    )


def vocabulary_size(tokens: VocabularyTable | VocabularyPairs) -> np.int64:
    """Returns the number of lines in the vocabulary's file. The file of an empty vocabulary has one, a dummy token."""
    return np.int64(max(len(tokens), 1))


def order_and_write(
    definition: analyzer_nodes.VocabularyOrderAndWrite,
    tokens: VocabularyTable | VocabularyPairs,
    path: Path,
    reserved_tokens: Sequence[bytes] | np.ndarray | None = None,
) -> Path:
    """Writes a vocabulary file: the reserved tokens, then the others by metric and by bytes, both descending.

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
    if isinstance(tokens, VocabularyPairs):
        head += [line(*pair) for pair in _ordered(tokens, definition, reserved)]
    else:
        store, query = tokens.store, _ordered_query(tokens, definition, reserved)
    if not write_vocabulary(path, definition.file_format, head, store, query):
        write_vocabulary(path, definition.file_format, [line(*dummy(definition.input_dtype))], None, "")
    return path


def _scan(tokens: Any, is_filtered: bool, trace: Trace, rows: RowSource, store: CountStore) -> ScanTally | None:
    scans = {name: scan for name in rows.specs if (scan := rows.scan(name)) is not None}
    replaced = substitution(trace, tokens, scans) if scans else None
    return None if replaced is None else ScanTally(store, scans[replaced.column], replaced, is_filtered)


def _above(tokens: VocabularyTable, min_frequency: float, min_information: float) -> str:
    """Returns SQL of TFT's thresholds."""
    if not (min_frequency > 0 or min_information > float("-inf")):
        return "true"
    bounds = {"metric": min_frequency}
    if "frequency" in tokens.extra_columns:
        bounds = {"frequency": min_frequency, "metric": min_information}
    # NaN is larger than all numbers in SQL, and not larger than any in Python.
    return " AND ".join(f"{name} >= '{float(b)!r}'::DOUBLE AND NOT isnan({name}::DOUBLE)" for name, b in bounds.items())


def _only_dummy(tokens: VocabularyTable, input_dtype: str) -> VocabularyTable:
    metric, token = dummy(input_dtype)
    token_sql = token.decode() if tokens.is_integer else blob(token)
    table = tokens.store.create(f"SELECT {token_sql} AS token, {metric}::BIGINT AS metric, '{metric}' AS text")
    return VocabularyTable(tokens.store, table, is_integer=tokens.is_integer, extra_columns=("text",))


def _keyed(tokens: VocabularyTable, kept: str, key_fn: Callable[[bytes], Any]) -> str:
    """Creates a table of the tokens with the number of each token's key."""
    store, numbers = tokens.store, {}
    table = store.create(f"SELECT {tokens.columns}, 0::BIGINT AS key FROM {tokens.table} WHERE false")
    for batch in store.stream(f"SELECT {tokens.columns}, {tokens.written} AS w FROM {tokens.table} WHERE {kept}"):
        keys = [numbers.setdefault(key_fn(token), len(numbers)) for token in batch["w"].to_pylist()]
        store.insert(table, pa.Table.from_batches([batch]).drop("w").append_column("key", pa.array(keys, pa.int64())))
    return table


def _ordered_query(tokens: VocabularyTable, definition: Any, reserved: Sequence[bytes] | None) -> str:
    written = tokens.written
    expression = f"encode({tokens.metric_text} || ' ') || {written}" if definition.store_frequency else written
    where = f"WHERE {written} NOT IN ({', '.join(map(blob, reserved))})" if reserved else ""
    order = f"sha1({written})" if definition.fingerprint_shuffle else tokens.largest_first
    return text_query(expression, f"FROM {tokens.table} {where} ORDER BY {order}", definition.file_format)


def _ordered(pairs: VocabularyPairs, definition: Any, reserved: Sequence[bytes] | None) -> list[tuple[Any, bytes]]:
    if definition.input_is_sorted and reserved is None:
        return pairs.items
    taken = set(reserved or ())
    items = [pair for pair in pairs.items if pair[1] not in taken]
    if definition.fingerprint_shuffle:
        return sorted(items, key=lambda pair: hashlib.sha1(pair[1]).digest())
    return sorted(items, reverse=True)


def _with_metric(metric: Any, token: bytes) -> bytes:
    return f"{metric} ".encode() + token


_MASK_DELTA = 0xA282EAD8
_UINT32 = 0xFFFFFFFF


def write_vocabulary(path: Path, file_format: str, head: Iterable[bytes], store: CountStore | None, query: str) -> int:
    """Writes a vocabulary file: text with one token per line, or compressed TFRecords.

    Args:
        path: The file.
        file_format: `text`, or `tfrecord_gzip` as Beam writes it.
        head: Lines that come first, already formatted.
        store: The store of the other tokens. None if there are none.
        query: SQL of the other tokens, in order, in one column of type BLOB.

    Returns:
        The number of tokens written.
    """
    head = list(head)
    write = _write_text if file_format == "text" else _write_records
    batches = iter(()) if store is None else (batch.column(0) for batch in store.stream(query))
    return write(path, head, batches)


def text_query(expression: str, from_clause: str, file_format: str) -> str:
    """Returns SQL for `write_vocabulary`. Lines of text end with a line break.

    Args:
        expression: SQL of a token as it is written, of type BLOB.
        from_clause: The query from FROM on.
        file_format: See `write_vocabulary`.
    """
    ending = r" || '\x0A'::BLOB" if file_format == "text" else ""
    return f"SELECT {expression}{ending} AS line {from_clause}"


def _write_text(path: Path, head: list[bytes], batches: Iterator[pa.Array]) -> int:
    rows = len(head)
    with open(path, "wb") as file:
        file.writelines(token + b"\n" for token in head)
        for batch in batches:
            rows += len(batch)
            # The lines are contiguous in Arrow's memory, so they are written without touching each.
            offsets = np.frombuffer(batch.buffers()[1], np.int32)[batch.offset : batch.offset + len(batch) + 1]
            if offsets[-1] > offsets[0]:
                file.write(memoryview(batch.buffers()[2])[offsets[0] : offsets[-1]])
    return rows


def _write_records(path: Path, head: list[bytes], batches: Iterator[pa.Array]) -> int:
    rows = 0
    # Like Beam: a header without time and name.
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    with open(path, "wb") as file:
        for tokens in _chunks(head, batches):
            rows += len(tokens)
            file.write(compressor.compress(b"".join(map(_record, tokens))))
        file.write(compressor.flush())
    return rows


def _chunks(head: list[bytes], batches: Iterator[pa.Array]) -> Iterator[list[bytes]]:
    yield head
    for batch in batches:
        yield batch.to_pylist()


def _record(token: bytes) -> bytes:
    """Returns a TFRecord: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(token))
    return b"".join((length, _checksum(length), token, _checksum(token)))


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _UINT32)
