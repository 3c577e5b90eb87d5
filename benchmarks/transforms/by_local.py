"""The transform by Tidemill's local engine."""

from __future__ import annotations

import time
from pathlib import Path

from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.runtime import Progress
from tidemill.transform.canonical import canonicalize
from tidemill.transform.describe import describe
from tidemill.transform.graph import TRANSFORM_FN, TransformGraph
from tidemill.transform.local_engine import LocalEngine
from tidemill.transform.raw import PreprocessingFn, raw_columns
from transforms.work import LABEL, preprocessing_fn


def run(examples: Path, out: Path, threads: int) -> dict[str, float]:
    """Writes `graph/`, as the preprocess step does, and `rows/train/part-*.parquet`; returns seconds by phase."""
    graph, seconds = analyze(preprocessing_fn, examples, out / "graph", threads)
    started = time.perf_counter()
    LocalEngine(threads=threads).transform(graph, Dataset(examples), out / "rows", Quiet("transform"))
    return seconds | {"transform": time.perf_counter() - started}


def analyze(
    function: PreprocessingFn, examples: Path, folder: Path, threads: int, analyzer_cache: Path | None = None
) -> tuple[TransformGraph, dict[str, float]]:
    """Returns the transform graph, and the seconds of the analysis and of completing the artifact."""
    data = Dataset(examples)
    columns = raw_columns(data.schema())
    started = time.perf_counter()
    with artifact.write_folder(folder) as partial:
        LocalEngine(threads=threads, analyzer_cache=analyzer_cache).analyze(
            function, columns, data, partial, Quiet("analyze")
        )
        analyzed = time.perf_counter()
        canonicalize(partial / TRANSFORM_FN)
        describe(partial, [LABEL], columns, None, schema_pb2.Schema())
    described = time.perf_counter()
    return TransformGraph(folder), {"analyze": analyzed - started, "describe": described - analyzed}


class Quiet(Progress):
    """Progress that is not reported."""

    def _write(self, event: dict) -> None:
        pass
