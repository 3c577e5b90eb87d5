"""Vocabularies of batches and of Parquet columns equal those of plain Python."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transform.vocabulary.reference import expected
from tests.transform.vocabulary.single_vocabulary import (
    Ordering,
    Vocabulary,
    VocabularyResult,
    finish,
    local_vocabulary,
    reduction,
)
from tests.transform.vocabulary.tokens import AWKWARD, BYTES, INTEGERS, TEXTS, VOCABULARIES
from tidemill.errors import Code, TidemillError
from tidemill.transform.analysis import tallies
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.partial_counts import PartialCounts
from tidemill.transform.analysis.scan_tally import ScanTally
from tidemill.transform.analysis.tallies import WeightTally
from tidemill.transform.apply.substitution import Substitution
from tidemill.transform.raw import RawColumn
from tidemill.transform.rows.parquet_rows import ParquetRows

pytestmark = pytest.mark.tensorflow
SOME = settings(max_examples=20, deadline=None)
KINDS = st.sampled_from(sorted(VOCABULARIES)).map(VOCABULARIES.__getitem__)
INTEGER_KINDS = KINDS.map(lambda want: dataclasses.replace(want, input_dtype="int64"))


def vocabulary_of_column(
    want: Vocabulary,
    files: list[pa.Table],
    substitution: Substitution,
    *,
    is_filtered: bool,
    threads: int = 1,
    analyzer_cache: bool = False,
) -> VocabularyResult:
    """Returns the vocabulary of a Parquet column. With `analyzer_cache` each file is dumped and loaded."""
    with tempfile.TemporaryDirectory() as name:
        folder, paths = Path(name), []
        for number, table in enumerate(files):
            paths.append(folder / f"{number}.parquet")
            pq.write_table(table, paths[-1], row_group_size=7)
        scan = ParquetRows(paths, [RawColumn(substitution.column, substitution.dtype)]).scan(substitution.column)
        with CountStore(folder, 1 << 28, threads, per_file=analyzer_cache) as store:
            tally = ScanTally(store, scan, substitution, is_filtered)
            if analyzer_cache:
                before = ScanTally(store, scan, substitution, is_filtered)
                before.run(range(1, len(files)))
                for number in range(1, len(files)):
                    (folder / str(number)).mkdir()
                    before.dump(number, folder / str(number))
                    tally.load(number, folder / str(number))
            tally.run([0] if analyzer_cache else range(len(files)))
            return finish(want, tally.result(), folder)


def count_tokens(values: list, substitution: Substitution, is_filtered: bool) -> Counter:
    """Returns the tokens of values with their counts, as TFT's graph computes them."""
    tokens: list = []
    for value in values:
        token = substitution.missing if value is None else substitution.replaced.get(value, value)
        if token is not None:
            tokens.append(str(token).encode() if substitution.as_string and isinstance(token, int) else token)
    if is_filtered:
        tokens = [t for t in tokens if isinstance(t, int) or not (t == b"" or b"\n" in t or b"\r" in t)]
    return Counter(tokens)


def column(values: list, type_: pa.DataType, cut: int) -> list[pa.Table]:
    """Returns two tables with a column, cut at a row."""
    array = pa.array(values, type_)
    return [pa.table({"Column": array[:cut]}), pa.table({"Column": array[cut:]})]


@st.composite
def substitutions(draw, values: st.SearchStrategy, tokens: st.SearchStrategy, **fields) -> Substitution:
    """Draws substitutions of some values, some by tokens that other values have, too."""
    replaced = draw(st.dictionaries(values, tokens, max_size=3))
    replaced = {value: token for value, token in replaced.items() if value != token}
    return Substitution("Column", replaced=replaced, missing=draw(st.none() | tokens), **fields)


@SOME
@given(
    want=KINDS,
    tokens=st.lists(BYTES, max_size=60),
    size=st.integers(1, 30),
    files=st.integers(1, 3),
    analyzer_cache=st.booleans(),
    frequency=st.booleans(),
    is_filtered=st.booleans(),
)
def test_vocabulary_of_batches(
    want: Vocabulary,
    tokens: list[bytes],
    size: int,
    files: int,
    analyzer_cache: bool,
    frequency: bool,
    is_filtered: bool,
):
    want = dataclasses.replace(want, store_frequency=frequency)
    batches = [(np.array(tokens[start : start + size], object),) for start in range(0, len(tokens), size)]
    with tempfile.TemporaryDirectory() as folder:
        made = local_vocabulary(
            want, batches, Path(folder), files=files, through_disk=analyzer_cache, is_filtered=is_filtered
        )
    kept = [token for token in tokens if not is_filtered or re.fullmatch(rb"[^\n\r]+", token)]
    assert made == expected(want, Counter(kept))


@SOME
@given(want=INTEGER_KINDS, tokens=st.lists(INTEGERS | st.just(-(2**63)), max_size=60), analyzer_cache=st.booleans())
def test_vocabulary_of_batches_of_integers(want: Vocabulary, tokens: list[int], analyzer_cache: bool):
    batches = [(np.array(tokens[start : start + 9], np.int64),) for start in range(0, len(tokens), 9)]
    with tempfile.TemporaryDirectory() as folder:
        made = local_vocabulary(want, batches, Path(folder), files=2, through_disk=analyzer_cache)
    assert made == expected(want, Counter(tokens))


@SOME
@given(
    want=KINDS,
    values=st.lists(st.none() | TEXTS, max_size=60),
    substitution=substitutions(TEXTS, BYTES, dtype="string", as_string=False),
    type_=st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
    is_filtered=st.booleans(),
    analyzer_cache=st.booleans(),
)
def test_vocabulary_of_a_text_column(
    want: Vocabulary, values: list, substitution: Substitution, type_, is_filtered: bool, analyzer_cache: bool
):
    texts = [None if value is None else value.decode() for value in values]
    made = vocabulary_of_column(
        want, column(texts, type_, 20), substitution, is_filtered=is_filtered, analyzer_cache=analyzer_cache
    )
    raw = [None if value == b"\x00" else value for value in values]
    assert made == expected(want, count_tokens(raw, substitution, is_filtered))


@SOME
@given(
    want=KINDS,
    values=st.lists(st.none() | BYTES, max_size=60),
    substitution=substitutions(BYTES, BYTES, dtype="string", as_string=False),
    is_filtered=st.booleans(),
    analyzer_cache=st.booleans(),
)
def test_vocabulary_of_a_binary_column(
    want: Vocabulary, values: list, substitution: Substitution, is_filtered: bool, analyzer_cache: bool
):
    made = vocabulary_of_column(
        want, column(values, pa.binary(), 20), substitution, is_filtered=is_filtered, analyzer_cache=analyzer_cache
    )
    raw = [None if value == b"\x00" else value for value in values]
    assert made == expected(want, count_tokens(raw, substitution, is_filtered))


@SOME
@given(
    want=INTEGER_KINDS,
    values=st.lists(st.none() | INTEGERS | st.just(-(2**63)), max_size=60),
    substitution=substitutions(INTEGERS, INTEGERS, dtype="int64", as_string=False),
    analyzer_cache=st.booleans(),
)
def test_vocabulary_of_an_integer_column(
    want: Vocabulary, values: list, substitution: Substitution, analyzer_cache: bool
):
    made = vocabulary_of_column(
        want, column(values, pa.int64(), 20), substitution, is_filtered=False, analyzer_cache=analyzer_cache
    )
    raw = [None if value == -(2**63) else value for value in values]
    assert made == expected(want, count_tokens(raw, substitution, False))


@SOME
@given(
    want=KINDS,
    values=st.lists(st.none() | INTEGERS, max_size=60),
    substitution=substitutions(INTEGERS, TEXTS, dtype="int64", as_string=True),
    is_filtered=st.booleans(),
)
def test_vocabulary_of_an_integer_column_as_text(
    want: Vocabulary, values: list, substitution: Substitution, is_filtered: bool
):
    made = vocabulary_of_column(want, column(values, pa.int64(), 20), substitution, is_filtered=is_filtered)
    assert made == expected(want, count_tokens(values, substitution, is_filtered))


def test_vocabulary_of_a_column_without_values():
    plain = Substitution("Column", "string", False, {}, None)
    filled = dataclasses.replace(plain, missing=b"none")
    for type_ in (pa.string(), pa.null()):
        files = column([None] * 5, type_, 5)
        assert vocabulary_of_column(Vocabulary(), files, plain, is_filtered=True) == expected(Vocabulary(), {})
        assert vocabulary_of_column(Vocabulary(), files, filled, is_filtered=True) == expected(
            Vocabulary(), {b"none": 5}
        )


def test_vocabulary_without_files_or_rows():
    with tempfile.TemporaryDirectory() as folder:
        assert local_vocabulary(Vocabulary(), [], Path(folder)) == expected(Vocabulary(), {})
    files = column([], pa.string(), 0)
    assert (
        vocabulary_of_column(
            Vocabulary(), files, Substitution("Column", "string", False, {}, None), is_filtered=True
        ).unpruned
        == 1
    )


def test_batches_and_scans_load_each_others_counts(tmp_path: Path):
    values = ["a", "b", "a", "", None]
    pq.write_table(pa.table({"Column": pa.array(values, pa.string())}), tmp_path / "rows.parquet")
    scan = ParquetRows([tmp_path / "rows.parquet"], [RawColumn("Column", "string")]).scan("Column")
    plain = Substitution("Column", "string", False, {}, None)
    for folder in ("scan", "batches"):
        (tmp_path / folder).mkdir()
    with CountStore(tmp_path, 1 << 28, 1, per_file=True) as store:
        scanned = ScanTally(store, scan, plain, True)
        scanned.run([0])
        scanned.dump(0, tmp_path / "scan")
        batches = reduction(Vocabulary(), store)
        batches.load(0, tmp_path / "scan")
        batches.dump(0, tmp_path / "batches")
        again = ScanTally(store, scan, plain, True)
        again.load(0, tmp_path / "batches")
        for tally in (scanned, batches, again):
            assert finish(Vocabulary(), tally.result(), tmp_path) == expected(Vocabulary(), {b"a": 2, b"b": 1})


def test_columns_whose_names_differ_only_in_case_are_not_scanned(tmp_path: Path):
    pq.write_table(pa.table({"a": ["x"], "A": ["y"], "b": ["z"]}), tmp_path / "rows.parquet")
    rows = ParquetRows([tmp_path / "rows.parquet"], [RawColumn(name, "string") for name in "aAb"])
    assert [rows.scan(name) is None for name in "aAb"] == [True, True, False]


def test_reports_text_that_is_not_utf8():
    offsets = pa.array([0, 1], pa.int32()).buffers()[1]
    bad = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    with pytest.raises(TidemillError) as error:
        substitution = Substitution("Column", "string", False, {}, None)
        vocabulary_of_column(Vocabulary(), [pa.table({"Column": bad})], substitution, is_filtered=True)
    assert error.value.code is Code.UNREADABLE_FILE


@pytest.mark.parametrize("weighted", [False, True])
def test_threads_and_memory_do_not_change_a_vocabulary(weighted: bool, tmp_path: Path):
    """There are enough tokens that pieces go to DuckDB early, and the float sums depend on their order."""
    rng = np.random.default_rng(0)
    names = np.array([b"token-%d" % i for i in range(20_000)], object)
    batches, exact = [], Counter()
    for _ in range(24):
        tokens = rng.permutation(names)[:8192]
        weights = rng.lognormal(0, 8, len(tokens)).astype(np.float32)
        batches.append((tokens, weights) if weighted else (tokens,))
        exact.update(tokens)
    want = Vocabulary(store_frequency=True, ordering=Ordering.WEIGHTED_FREQUENCY if weighted else Ordering.FREQUENCY)
    made = [
        local_vocabulary(
            want,
            batches,
            tmp_path / str(i),
            files=3,
            unit=4,
            threads=threads,
            memory=memory,
            through_disk=analyzer_cache,
        )
        for i, (threads, memory, analyzer_cache) in enumerate(
            [(1, 1 << 28, False), (2, 1 << 25, False), (3, 1 << 28, True)]
        )
    ]
    assert made[0] == made[1] == made[2]
    if not weighted:
        assert made[0] == expected(want, exact)


@pytest.mark.parametrize("weighted", [False, True])
def test_units_merge_their_batches_early_if_they_are_large(weighted: bool, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tallies, "_MAX_ROWS", 3)
    tokens = np.array([b"a", b"b", b"a", b"c"], object)
    batches = [(tokens, np.array([1, 2, 3, 4], np.float32)) if weighted else (tokens,)] * 5
    ordering = Ordering.WEIGHTED_FREQUENCY if weighted else Ordering.FREQUENCY
    want = Vocabulary(store_frequency=True, ordering=ordering)
    counts = {b"a": 20.0, b"b": 10.0, b"c": 20.0} if weighted else {b"a": 10, b"b": 5, b"c": 5}
    assert local_vocabulary(want, batches, tmp_path, unit=5) == expected(want, counts)


def test_sums_of_integer_weights_are_integers(tmp_path: Path):
    tokens = np.array([b"a", b"b"], object)
    with CountStore(tmp_path, 1 << 28, 1) as store:
        tally = WeightTally(PartialCounts(store, "BLOB", "BIGINT", ordered=False), ())
        for weights in ([2**53, 5], [1, 7]):
            tally.collect(0, tally.finish(tally.add(tally.start(), (tokens, np.array(weights)))))
        tally.close(0)
        want = Vocabulary(store_frequency=True)
        assert finish(want, tally.result(), tmp_path) == expected(want, {b"a": 2**53 + 1, b"b": 12})


def test_labels_of_batches_without_tokens_are_skipped(tmp_path: Path):
    kinds = {"ordering": Ordering.MUTUAL_INFORMATION, "min_diff_from_avg": 0.0, "store_frequency": True}
    sentinel = b"global_y_count_sentinel"
    batch = (np.array([b"a", sentinel], object), np.array([[0, 2], [2, 2]], np.float32), np.array([2, 4]))
    empty = (np.array([], object), np.zeros((0, 2), np.float32), np.array([], np.int64))
    results = [
        local_vocabulary(Vocabulary(**kinds), batches, tmp_path / name)
        for name, batches in {"with": [empty, batch, empty], "without": [batch]}.items()
    ]
    assert results[0] == results[1] and results[0].file.endswith(b" a\n")


def test_weights_are_formatted_as_by_python(tmp_path: Path):
    weights = np.array([1e16, 1e15, 123456789.125, 1e-5, 1e-4, 0.1, 3, -0.0, 1e22, 5e-324, 1.7e308], np.float64)
    tokens = np.array([b"t%d" % i for i in range(len(weights))], object)
    want = Vocabulary(store_frequency=True, ordering=Ordering.WEIGHTED_FREQUENCY)
    made = local_vocabulary(want, [(tokens, weights)], tmp_path)
    sums = {token: 0 + float(weight) for token, weight in zip(tokens, weights, strict=True)}
    assert made == expected(want, sums)


def test_awkward_tokens_are_ordered_by_their_bytes(tmp_path: Path):
    made = local_vocabulary(Vocabulary(), [(np.array(AWKWARD, object),)], tmp_path)
    assert made.file == b"".join(token + b"\n" for token in sorted(AWKWARD, reverse=True))
