"""Computes one vocabulary from batches of arrays, with TFT's Beam implementation and with the local engine."""

from __future__ import annotations

import contextlib
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
class Vocabulary:
    """Settings of one vocabulary; the fields are those of TFT's nodes."""

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
        """The node of TFT."""
        return analyzer_nodes.VocabularyAccumulate(self.ordering, self.input_dtype)

    @property
    def merge(self) -> analyzer_nodes.VocabularyMerge:
        """The node of TFT."""
        return analyzer_nodes.VocabularyMerge(self.ordering, self.adjusted, self.min_diff_from_avg)

    @property
    def prune(self) -> analyzer_nodes.VocabularyPrune:
        """The node of TFT."""
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
        """The node of TFT."""
        is_sorted = self.top_k is not None and self.key_fn is None and not self.fingerprint_shuffle
        return analyzer_nodes.VocabularyOrderAndWrite(
            name, self.store_frequency, self.fingerprint_shuffle, self.file_format, self.input_dtype, is_sorted
        )


@dataclass(frozen=True)
class VocabularyResult:
    """A vocabulary: the file's bytes, and the number of tokens before and after pruning."""

    file: bytes
    unpruned: int
    pruned: int


def beam_vocabularies(
    wanted: Mapping[str, tuple[Vocabulary, Sequence[Batch]]], folder: Path
) -> dict[str, VocabularyResult]:
    """Computes vocabularies in one pipeline on Beam's DirectRunner.

    Args:
        wanted: By name the settings of a vocabulary and its batches.
        folder: Folder to write to.
    """
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
        made[name] = VocabularyResult((folder / _file_name(name, want)).read_bytes(), *sizes)
    return made


def local_vocabulary(
    want: Vocabulary,
    batches: Sequence[Batch],
    folder: Path,
    *,
    files: int = 1,
    unit: int = 2,
    threads: int = 1,
    through_disk: bool = False,
    memory: int = MEMORY,
    is_filtered: bool = False,
    store: CountStore | None = None,
) -> VocabularyResult:
    """Computes a vocabulary with the local engine.

    Args:
        want: Settings of the vocabulary.
        batches: Batches of tokens, with weights or labels if the settings need them.
        folder: Folder to write to.
        files: Number of files into which the batches are divided.
        unit: Number of batches in a unit of work.
        threads: Number of DuckDB's threads.
        through_disk: Whether accumulators are written to disk and loaded by another reduction.
        memory: Largest number of bytes in memory.
        is_filtered: Whether tokens that a text file cannot hold are dropped.
        store: An open store with these settings. Defaults to a new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new_store = CountStore(folder, memory, threads, per_file=through_disk) if store is None else None
    with new_store or contextlib.nullcontext(store) as store:
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
                (folder / f"file{file}").mkdir()
                tally.dump(file, folder / f"file{file}")
                loaded.load(file, folder / f"file{file}")
            tally = loaded
        return finish(want, tally.result(), folder)


def reduction(want: Vocabulary, store: CountStore, is_filtered: bool = False) -> BatchTally:
    """Returns a reduction of batches."""
    token = "BLOB" if want.input_dtype == "string" else "BIGINT"
    if want.ordering == Ordering.FREQUENCY:
        return CountTally(PartialCounts(store, token, "BIGINT", ordered=False), (), is_filtered)
    if want.ordering == Ordering.WEIGHTED_FREQUENCY:
        return WeightTally(PartialCounts(store, token, "DOUBLE", ordered=True), ())
    return CooccurrenceTally(PartialCounts(store, token, "DOUBLE", ordered=True), ())


def finish(want: Vocabulary, result: object, folder: Path) -> VocabularyResult:
    """Runs the nodes after the reduction."""
    tokens = vocabulary.merge(want.merge, result)
    pruned = vocabulary.prune(want.prune, tokens)
    path = folder / _file_name("local", want)
    vocabulary.order_and_write(want.write("local"), pruned, path, want.reserved)
    sizes = [int(vocabulary.vocabulary_size(t)) for t in (tokens, pruned)]
    return VocabularyResult(path.read_bytes(), *sizes)


def _file_name(name: str, want: Vocabulary) -> str:
    return name if want.file_format == "text" else f"{name}.tfrecord.gz"
