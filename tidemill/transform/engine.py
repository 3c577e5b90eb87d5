"""Who computes a transform: the interface behind which the engines stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import PreprocessingFn, RawColumn


class Engine(Protocol):
    """Computes what a preprocessing_fn asks for. All engines write the same files from the same input."""

    def analyse(
        self,
        preprocessing_fn: PreprocessingFn,
        columns: Sequence[RawColumn],
        examples: Dataset,
        folder: Path,
        progress: Progress,
    ) -> None:
        """Runs the analyzers over the train split, and writes `transform_fn/` and `transformed_metadata/` to a folder.

        Args:
            preprocessing_fn: What to compute, with TensorFlow Transform's analyzers.
            columns: The raw columns that it is given, all as sparse tensors.
            examples: The raw rows.
            folder: An existing folder.
            progress: Told how far the first pass over the rows is.
        """

    def transform(self, graph: TransformGraph, examples: Dataset, folder: Path, progress: Progress) -> None:
        """Applies a transform graph to all splits. Each shard becomes one of the same name and row order.

        Args:
            graph: The graph.
            examples: The raw rows.
            folder: An existing folder, to which `{split}/part-*.parquet` are written.
            progress: Told how many rows are through.
        """


def open_engine(spec: PreprocessSpec, examples: Dataset, analyzer_cache: Path | None = None) -> Engine:
    """The engine that a spec asks for.

    Args:
        spec: Engine, runner and options, and the size up to which `auto` means `local`.
        examples: The raw rows.
        analyzer_cache: Folder in which the local engine keeps what it finds in each file of train. Defaults to none.

    Raises:
        TidemillError: `missing-package` or `invalid-value` for a runner or options that cannot be used.
    """
    try:
        if uses_beam(spec, examples):
            from tidemill.transform.beam.beam_engine import BeamEngine

            return BeamEngine(spec.runner or "direct", spec.options)
        from tidemill.transform.local_engine import LocalEngine

        return LocalEngine(analyzer_cache=analyzer_cache)
    except ImportError as error:
        got = f"no module {error.name!r}"
        raise TidemillError(Code.MISSING_PACKAGE, "preprocess", got, "install Tidemill with its extra steps") from error


def uses_beam(spec: PreprocessSpec, examples: Dataset) -> bool:
    """Whether a spec means Beam: it says so, names a runner, or leaves it to the size of train."""
    if spec.engine != "auto":
        return spec.engine == "beam"
    return spec.runner is not None or examples.splits["train"].bytes > spec.local_limit
