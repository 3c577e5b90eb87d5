"""The nested pipeline `fold`: trains one member on one fold."""

from typing import NamedTuple

from kfp import dsl
from tidemill.components.train.component import train
from tidemill.pipelines.training_tasks import retry_failed_pods, set_placement


class Fold(NamedTuple):
    """The outputs of `fold`."""

    model: dsl.Model


@dsl.pipeline(name="tidemill-fold")
def fold(
    train_spec: str,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    cpu: str,
    cpu_limit: str,
    memory: str,
    memory_limit: str,
    gpus: str,
    node_selector: dict,
    tolerations: list,
    node_affinity: dict,
) -> Fold:
    """Trains one member without the rows of one fold, and scores these rows.

    Args:
        train_spec: URI of the spec of `train` with a fold.
        root: URI of the folder for checkpoints and records of failures.
        examples: The examples of `ingest`.
        transformed: The transformed examples of `preprocess`.
        transform_graph: The transform graph of `preprocess`.
        cpu: CPU cores that are reserved for the training step.
        cpu_limit: The most CPU cores that the training step may use.
        memory: Memory that is reserved for the training step.
        memory_limit: The most memory that the training step may use.
        gpus: Number of GPUs of the training step, empty for none.
        node_selector: Labels of the nodes on which training may run.
        tolerations: Kubernetes tolerations of the training step.
        node_affinity: Kubernetes node affinity of the training step.

    Returns:
        model: The model of `train`.
    """
    trained = train(
        spec=train_spec,
        root=root,
        examples=examples,
        transformed=transformed,
        transform_graph=transform_graph,
    )
    trained.set_display_name("Train")
    set_placement(
        trained,
        cpu=cpu,
        cpu_limit=cpu_limit,
        memory=memory,
        memory_limit=memory_limit,
        gpus=gpus,
        node_selector=node_selector,
        tolerations=tolerations,
        node_affinity=node_affinity,
    )
    retry_failed_pods(trained)
    return Fold(trained.outputs["model"])
