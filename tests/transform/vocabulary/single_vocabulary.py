"""One vocabulary from batches of arrays, by TFT's Beam implementation of the nodes and by the local one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tensorflow_transform import analyzer_nodes, analyzers

from tidemill.transform.analysis import vocabulary
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.partial_counts import PartialCounts
from tidemill.transform.analysis.tallies import BatchTally, CooccurrenceTally, CountTally, WeightTally

Ordering = analyzers._VocabOrderingType
Batch = tuple[np.ndarray, ...]
MEMORY = 1 << 28


@dataclass(frozen=True)
class Wanted:
    """A vocabulary that is asked for; the fields are those of TFT's nodes."""

    ordering: int = Ordering.FREQUENCY
    input_dtype: str = "string"
    adjusted: bool = False
    min_diff_from_avg: float | None = None
    top_k: int | None = None
    frequency_threshold: float = 0
    informativeness_threshold: float = float("-inf")
    coverage_top_k: int | None = None
    coverage_frequency_threshold: float = 0
    key_fn: Callable | None = None
    store_frequency: bool = False
    fingerprint_shuffle: bool = False
    file_format: str = "text"
    reserved: tuple[bytes, ...] | None = None

    @property
    def accumulate(self) -> analyzer_nodes.VocabularyAccumulate:
        """TFT's node."""
        return analyzer_nodes.VocabularyAccumulate(self.ordering, self.input_dtype)

    @property
    def merge(self) -> analyzer_nodes.VocabularyMerge:
        """TFT's node."""
        return analyzer_nodes.VocabularyMerge(self.ordering, self.adjusted, self.min_diff_from_avg)

    @property
    def prune(self) -> analyzer_nodes.VocabularyPrune:
        """TFT's node."""
        return analyzer_nodes.VocabularyPrune(
            self.top_k,
            self.frequency_threshold,
            self.input_dtype,
            self.informativeness_threshold,
            self.coverage_top_k,
            self.coverage_frequency_threshold,
            key_fn=self.key_fn,
        )

    def write(self, name: str) -> analyzer_nodes.VocabularyOrderAndWrite:
        """TFT's node."""
        is_sorted = self.top_k is not None and self.key_fn is None and not self.fingerprint_shuffle
        return analyzer_nodes.VocabularyOrderAndWrite(
            name, self.store_frequency, self.fingerprint_shuffle, self.file_format, self.input_dtype, is_sorted
        )


@dataclass(frozen=True)
class Made:
    """A vocabulary: the file's bytes, and the number of tokens before and after pruning."""

    file: bytes
    unpruned: int
    pruned: int


def by_beam(wanted: Mapping[str, tuple[Wanted, Sequence[Batch]]], folder: Path) -> dict[str, Made]:
    """All vocabularies by one pipeline on Beam's DirectRunner, by name."""
    import apache_beam as beam
    from tensorflow_transform.beam import analyzer_impls as impls

    extra = SimpleNamespace(base_temp_dir=str(folder), graph=None)
    folder.mkdir(parents=True, exist_ok=True)
    with beam.Pipeline(runner="DirectRunner") as pipeline:
        for name, (want, batches) in wanted.items():
            tokens = (pipeline | f"{name} batches" >> beam.Create(list(batches), reshuffle=False),)
            tokens = (tokens | f"{name} accumulate" >> impls._VocabularyAccumulateImpl(want.accumulate, extra),)
            tokens = (tokens | f"{name} merge" >> impls._VocabularyMergeImpl(want.merge, extra),)
            pruned = (tokens | f"{name} prune" >> impls._VocabularyPruneImpl(want.prune, extra),)
            for kind, value in (("unpruned", tokens), ("pruned", pruned)):
                size = value | f"{name} {kind}" >> impls._VocabularyCountImpl(None, extra)
                size | f"{name} {kind} write" >> beam.io.WriteToText(str(folder / f"{name}.{kind}"), "", True, 1, "")
            if want.reserved is not None:
                reserved = np.array(want.reserved, object)
                pruned = (*pruned, pipeline | f"{name} reserved" >> beam.Create([[reserved]]))
            pruned | f"{name} write" >> impls._VocabularyOrderAndWriteImpl(want.write(name), extra)
    made = {}
    for name, (want, _) in wanted.items():
        sizes = [int((folder / f"{name}.{kind}").read_text()) for kind in ("unpruned", "pruned")]
        made[name] = Made((folder / _file_name(name, want)).read_bytes(), *sizes)
    return made


def by_local(
    want: Wanted,
    batches: Sequence[Batch],
    folder: Path,
    *,
    files: int = 1,
    unit: int = 2,
    threads: int = 1,
    through_disk: bool = False,
    memory: int = MEMORY,
    is_filtered: bool = False,
) -> Made:
    """The vocabulary by the local engine.

    Args:
        want: The vocabulary.
        batches: What it is made of.
        folder: Where to write.
        files: Into how many files the batches are divided.
        unit: Batches of a unit.
        threads: DuckDB's threads.
        through_disk: Whether the files are dumped, and loaded again by another reduction.
        memory: What may be held in memory.
        is_filtered: Whether TFT's filter for text files applies to tokens that are counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with CountStore(folder, memory, threads, per_file=through_disk) as store:
        tally = reduction(want, store, is_filtered)
        parts = np.array_split(np.arange(len(batches)), files)
        for file, part in enumerate(parts):
            for start in range(0, len(part), unit):
                partial = tally.start()
                for index in part[start : start + unit]:
                    partial = tally.add(partial, batches[index])
                tally.collect(file, tally.finish(partial))
            tally.close(file)
        if through_disk:
            loaded = reduction(want, store, is_filtered)
            for file in range(files):
                (folder / f"span{file}").mkdir()
                tally.dump(file, folder / f"span{file}")
                loaded.load(file, folder / f"span{file}")
            tally = loaded
        return finish(want, tally.result(), folder)


def reduction(want: Wanted, store: CountStore, is_filtered: bool = False) -> BatchTally:
    """The reduction of batches."""
    token = "BLOB" if want.input_dtype == "string" else "BIGINT"
    if want.ordering == Ordering.FREQUENCY:
        return CountTally(PartialCounts(store, token, "BIGINT", ordered=False), (), is_filtered)
    if want.ordering == Ordering.WEIGHTED_FREQUENCY:
        return WeightTally(PartialCounts(store, token, "DOUBLE", ordered=True), ())
    return CooccurrenceTally(PartialCounts(store, token, "DOUBLE", ordered=True), ())


def finish(want: Wanted, result: object, folder: Path) -> Made:
    """What the nodes after the reduction make of its result."""
    tokens = vocabulary.merge(want.merge, result)
    pruned = vocabulary.prune(want.prune, tokens)
    path = folder / _file_name("local", want)
    vocabulary.order_and_write(want.write("local"), pruned, path, want.reserved)
    sizes = [int(vocabulary.count(analyzer_nodes.VocabularyCount("size"), t)) for t in (tokens, pruned)]
    return Made(path.read_bytes(), *sizes)


def _file_name(name: str, want: Wanted) -> str:
    return name if want.file_format == "text" else f"{name}.tfrecord.gz"
