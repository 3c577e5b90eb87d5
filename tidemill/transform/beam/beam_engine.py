"""The transform engine on Apache Beam. Imports TensorFlow and Beam.

The analysis is a Beam pipeline over the row groups of the train split. The transform needs no shuffle: each shard
becomes a shard, in row order. The `direct` runner runs in this process. The other runners run on their workers, through
a folder below `--temp_location`, and need examples that the workers can read, such as `gs://`.
"""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_transform.beam as tft_beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.runners.runner import PipelineResult, PipelineRunner
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from tidemill.artifacts.examples import Dataset
from tidemill.errors import TidemillError
from tidemill.runtime import Progress
from tidemill.transform.beam import runners, workspace
from tidemill.transform.graph import TRANSFORM_FN, TRANSFORMED_METADATA, TransformGraph
from tidemill.transform.raw import PreprocessingFn, RawColumn, list_schema, to_lists
from tidemill.transform.transformed import ShardTransformer

_BATCH_ROWS = 1 << 14


class BeamEngine:
    """A transform engine on Apache Beam.

    Args:
        runner: `direct`, `dataflow`, `flink` or `spark`.
        flags: The runner's pipeline options.

    Raises:
        TidemillError: `missing-package` or `invalid-value`. Methods raise `invalid-value` if the runner accepts no job.
    """

    def __init__(self, runner: str, flags: Sequence[str]):
        self._options = runners.pipeline_options(runner, flags)
        self._open_runner = lambda: runners.open_runner(runner)
        self._is_local = runner == "direct"
        self._open_runner()

    def analyze(
        self,
        preprocessing_fn: PreprocessingFn,
        columns: Sequence[RawColumn],
        examples: Dataset,
        folder: Path,
        progress: Progress,
    ) -> None:
        """See `Engine.analyze`."""
        groups = _row_groups(examples, "train", workspace.shared_uri if not self._is_local else str)
        read = _ReadRowGroups(tuple(columns), examples.rows("train"), progress if self._is_local else None)
        with self._workspace() as work:
            output = posixpath.join(work, "output")
            context = tft_beam.Context(temp_dir=posixpath.join(work, "temp"), use_deep_copy_optimization=True)
            with self._pipeline() as pipeline, context:
                batches = pipeline | "RowGroups" >> beam.Create(groups, reshuffle=not self._is_local) | beam.ParDo(read)
                analyzed = (batches, tensor_adapter_config(columns)) | tft_beam.AnalyzeDataset(preprocessing_fn)
                _ = analyzed | tft_beam.WriteTransformFn(output)
            for name in (TRANSFORM_FN, TRANSFORMED_METADATA):
                workspace.download(posixpath.join(output, name), folder / name)

    def transform(self, graph: TransformGraph, examples: Dataset, folder: Path, progress: Progress) -> None:
        """See `Engine.transform`."""
        names = [file.name for split in examples.splits.values() for file in split.files]
        if self._is_local:
            self._transform_locally(graph, examples, names, folder, progress)
            return
        with self._workspace() as work:
            workspace.upload(graph.path, posixpath.join(work, "graph"))
            do = _TransformShards(workspace.shared_uri(examples.path), work)
            with self._pipeline() as pipeline:
                _ = pipeline | "Shards" >> beam.Create(names) | beam.ParDo(do)
            workspace.download(posixpath.join(work, "shards"), folder)

    def _transform_locally(
        self, graph: TransformGraph, examples: Dataset, names: list[str], folder: Path, progress: Progress
    ) -> None:
        transformer = ShardTransformer(graph)
        done, total = 0, sum(split.rows for split in examples.splits.values())

        def on_rows(rows: int) -> None:
            nonlocal done
            done += rows
            progress.rows(done, total, "transform")

        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            transformer.run(examples.path / name, folder / name, on_rows)

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[str]:
        """Yields a folder that the workers can reach, and removes it afterwards."""
        if self._is_local:
            with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
                yield folder
            return
        folder = posixpath.join(runners.temp_location(self._options), f"tidemill-{uuid.uuid4().hex}")
        try:
            yield folder
        finally:
            workspace.remove(folder)

    def _pipeline(self) -> beam.Pipeline:
        runner: PipelineRunner = self._open_runner()
        make = beam.Pipeline if self._is_local else _RemotePipeline
        return make(runner=runner, options=self._options)


class _RemotePipeline(beam.Pipeline):
    """A pipeline for remote workers. Reports errors of submission; errors on workers come later, from the result."""

    def run(self, *arguments: Any, **named: Any) -> PipelineResult:
        try:
            return super().run(*arguments, **named)
        except TidemillError:
            raise
        except Exception as error:
            raise runners.unreached_error(error) from error


def tensor_adapter_config(columns: Sequence[RawColumn]) -> TensorAdapterConfig:
    """Returns tfx_bsl's configuration for record batches of `to_lists`: each column is a sparse tensor, TFX's
    default."""
    representations = {}
    for column in columns:
        sparse = schema_pb2.TensorRepresentation.VarLenSparseTensor(column_name=column.name)
        representations[column.name] = schema_pb2.TensorRepresentation(varlen_sparse_tensor=sparse)
    return TensorAdapterConfig(list_schema(columns), representations)


@dataclass(frozen=True)
class _RowGroupOfShard:
    """One row group of a shard, and the number of rows of the split before it."""

    uri: str
    index: int
    rows_before: int


def _row_groups(examples: Dataset, split: str, to_uri: Callable[[Path], str]) -> list[_RowGroupOfShard]:
    groups, rows = [], 0
    for path in examples.files(split):
        metadata = pq.read_metadata(path)
        for index in range(metadata.num_row_groups):
            groups.append(_RowGroupOfShard(to_uri(path), index, rows))
            rows += metadata.row_group(index).num_rows
    return groups


class _ReadRowGroups(beam.DoFn):
    """A DoFn that reads row groups in small batches, so that a pipeline holds only one batch at a time."""

    def __init__(self, columns: tuple[RawColumn, ...], total: int, progress: Progress | None):
        self._columns, self._total, self._progress = columns, total, progress

    def process(self, group: _RowGroupOfShard) -> Iterator[pa.RecordBatch]:
        names = [column.name for column in self._columns]
        done = group.rows_before
        with FileSystems.open(group.uri, compression_type="uncompressed") as source, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group.index], columns=names):
                yield to_lists(batch, self._columns)
                done += batch.num_rows
                if self._progress:
                    self._progress.rows(done, self._total, "analyze")


class _TransformShards(beam.DoFn):
    """A DoFn that transforms shards on a worker. It reads the graph from the workspace and writes the results there."""

    def __init__(self, examples: str, work: str):
        self._examples, self._work = examples, work

    def setup(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tidemill-")
        graph = Path(self._folder.name) / "graph"
        workspace.download(posixpath.join(self._work, "graph"), graph)
        self._transformer = ShardTransformer(TransformGraph(graph))

    def process(self, name: str) -> Iterator[str]:
        source, target = Path(self._folder.name) / "source", Path(self._folder.name) / "target"
        workspace.download_file(posixpath.join(self._examples, name), source)
        self._transformer.run(source, target, lambda rows: None)
        workspace.upload_file(target, posixpath.join(self._work, "shards", name))
        yield name

    def teardown(self) -> None:
        self._folder.cleanup()
