"""All members on all folds: training alone."""

from typing import List, NamedTuple  # noqa: UP035 - kfp reads the annotation by this name

from kfp import dsl
from tidemill.pipelines.fold.pipeline import fold


class Folds(NamedTuple):
    """What the folds hand on."""

    models: List[dsl.Model]  # noqa: UP006


@dsl.pipeline(name="tidemill-folds")
def folds(
    items: list,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
) -> Folds:
    """Trains every member once a fold.

    Args:
        items: The `folds` of `plan_training`, by `fan_out`.
        root: URI of the folder where checkpoints are kept.
        examples: The examples of `ingest`.
        transformed: The transformed examples of `preprocess`.
        transform_graph: The transform graph of `preprocess`.
        models: The models of `train`, one a member and fold.
    """
    with dsl.ParallelFor(items, name="fold") as item:
        # kfp passes what only a resource setting reads into a nested pipeline, but not into a loop.
        one = fold(
            train_spec=item.train,
            root=root,
            examples=examples,
            transformed=transformed,
            transform_graph=transform_graph,
            cpu=item.cpu,
            memory=item.memory,
            accelerator_type=item.accelerator_type,
            accelerator_count=item.accelerator_count,
            node_selector=item.node_selector,
            tolerations=item.tolerations,
        )
    return Folds(dsl.Collected(one.outputs["model"]))
