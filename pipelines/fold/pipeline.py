"""One member on one fold: training alone."""

from typing import NamedTuple

from kfp import dsl
from tidemill.components.train.component import train
from tidemill.pipelines.parts import place, try_again


class Fold(NamedTuple):
    """What a fold hands on."""

    model: dsl.Model


@dsl.pipeline(name="tidemill-fold")
def fold(
    train_spec: str,
    root: str,
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    cpu: str,
    memory: str,
    accelerator_type: str,
    accelerator_count: str,
    node_selector: dict,
    tolerations: list,
) -> Fold:
    """Trains one model without the rows of a fold, and scores these.

    Args:
        train_spec: Spec of `train`, with a fold.
        root: URI of the folder where checkpoints are kept.
        examples: The examples of `ingest`.
        transformed: The transformed examples of `preprocess`.
        transform_graph: The transform graph of `preprocess`.
        cpu: CPU cores of the training step.
        memory: Memory of the training step.
        accelerator_type: The cluster's name of the accelerator resource, such as nvidia.com/gpu.
        accelerator_count: Accelerators of the training step; 0 trains on the CPU.
        node_selector: Labels of the nodes that training may run on.
        tolerations: Kubernetes tolerations of the training step.
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
    place(trained, cpu, memory, accelerator_type, accelerator_count, node_selector, tolerations)
    try_again(trained)
    return Fold(trained.outputs["model"])
