"""The interface of transform engines, and the choice between them."""

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
    """An engine that analyzes and applies a preprocessing_fn. All engines write the same files from the same input."""

    def analyze(
        self,
        preprocessing_fn: PreprocessingFn,
        columns: Sequence[RawColumn],
        examples: Dataset,
        folder: Path,
        progress: Progress,
    ) -> None:
        """Runs the analyzers over the train split and writes `transform_fn/` and `transformed_metadata/`.

        Args:
            preprocessing_fn: A function that uses TensorFlow Transform's analyzers.
            columns: The raw columns that it takes, all as sparse tensors.
            examples: The raw rows.
            folder: An existing folder to write to.
            progress: Reports the rows of the first pass.
        """

    def transform(self, graph: TransformGraph, examples: Dataset, folder: Path, progress: Progress) -> None:
        """Applies a transform graph to all splits. Each shard becomes one of the same name and row order.

        Args:
            graph: The graph.
            examples: The raw rows.
            folder: An existing folder, to which `{split}/part-*.parquet` are written.
            progress: Reports the rows that are written.
        """


def open_engine(spec: PreprocessSpec, examples: Dataset, analyzer_cache: Path | None = None) -> Engine:
    """Returns the engine that a spec selects.

    Args:
        spec: Engine, runner and options, and the size up to which `auto` selects `local`.
        examples: The raw rows.
        analyzer_cache: Folder in which the local engine keeps the accumulators of each file of train. Defaults to none.

    Raises:
        TidemillError: `missing-package` or `invalid-value` if the runner or its options cannot be used.
    """
    try:
        if uses_beam(spec, examples):
            from tidemill.transform.beam.beam_engine import BeamEngine

            return BeamEngine(spec.runner or "direct", spec.options)
        from tidemill.transform.local_engine import LocalEngine

        return LocalEngine(analyzer_cache=analyzer_cache)
    except ImportError as error:
        got = f"no module {error.name!r}"
        raise TidemillError(Code.MISSING_PACKAGE, "preprocess", got, "install tidemill[steps]") from error


def uses_beam(spec: PreprocessSpec, examples: Dataset) -> bool:
    """Returns whether a spec selects Beam: by name, by a runner, or with `auto` by the size of train."""
    if spec.engine != "auto":
        return spec.engine == "beam"
    return spec.runner is not None or examples.splits["train"].bytes > spec.local_limit
