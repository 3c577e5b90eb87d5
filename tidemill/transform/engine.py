"""Who computes a transform: the interface behind which the engines stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tidemill.data.dataset import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.specs import PreprocessSpec
from tidemill.step import Progress
from tidemill.transform.graph import TransformGraph
from tidemill.transform.raw import RawColumn

PreprocessingFn = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Raw columns as sparse tensors `[batch, 1]` by name, to output tensors by name. Must be picklable."""


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


def open_engine(spec: PreprocessSpec) -> Engine:
    """The engine that a spec asks for.

    Raises:
        TidemillError: `missing-package` or `invalid-value` for a runner or options that cannot be used.
    """
    try:
        from tidemill.transform.beam import BeamEngine
    except ImportError as error:
        got = f"no module {error.name!r}"
        raise TidemillError(Code.MISSING_PACKAGE, "preprocess", got, "install tidemill[steps]") from error
    return BeamEngine(spec.runner, spec.options)
