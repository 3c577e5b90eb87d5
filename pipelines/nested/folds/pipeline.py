"""The nested pipeline `folds`: trains each member on each fold."""

from typing import List, NamedTuple  # noqa: UP035 - kfp reads the annotation by this name

from kfp import dsl
from tidemill.pipelines.nested.fold.pipeline import fold


class Folds(NamedTuple):
    """The outputs of `folds`."""

    models: List[dsl.Model]  # noqa: UP006


@dsl.pipeline(name="tidemill-folds")
def folds(
    items: list,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
) -> Folds:
    """Trains each member once for each fold.

    Args:
        items: The output `folds` of `plan_training`, parsed by `fan_out`.
        root: URI of the folder for checkpoints.
        examples: The examples of `ingest`.
        transformed: The transformed examples of `preprocess`.
        transform_graph: The transform graph of `preprocess`.

    Returns:
        models: The models of `train`, one for each member and fold.
    """
    with dsl.ParallelFor(items, name="fold") as item:
        # KFP cannot pass resource settings into a loop, but it can pass them into a nested pipeline.
        trained = fold(
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
    return Folds(dsl.Collected(trained.outputs["model"]))
