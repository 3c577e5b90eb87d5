"""The nested pipeline `member`: trains and evaluates one member."""

from typing import NamedTuple

from kfp import dsl
from tidemill.components.evaluate.component import evaluate
from tidemill.components.train.component import train
from tidemill.pipelines.training_tasks import retry_failed_pods, set_placement


class Member(NamedTuple):
    """The outputs of `member`."""

    model: dsl.Model
    evaluation: dsl.Artifact


@dsl.pipeline(name="tidemill-member")
def member(
    train_spec: str,
    evaluate_spec: str,
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
) -> Member:
    """Trains one member and evaluates it.

    Args:
        train_spec: URI of the spec of `train`.
        evaluate_spec: URI of the spec of `evaluate`.
        root: URI of the folder for checkpoints and records of failures.
        examples: The examples of `ingest`.
        transformed: The transformed examples of `preprocess`.
        transform_graph: The transform graph of `preprocess`.
        cpu: CPU cores of the training step.
        memory: Memory of the training step.
        accelerator_type: Name of the accelerator resource in the cluster, such as nvidia.com/gpu.
        accelerator_count: Number of accelerators of the training step. 0 trains on the CPU.
        node_selector: Labels of the nodes on which training may run.
        tolerations: Kubernetes tolerations of the training step.

    Returns:
        model: The model of `train`.
        evaluation: The evaluation of `evaluate`.
    """
    trained = train(
        spec=train_spec,
        root=root,
        examples=examples,
        transformed=transformed,
        transform_graph=transform_graph,
    )
    trained.set_display_name("Train")
    set_placement(trained, cpu, memory, accelerator_type, accelerator_count, node_selector, tolerations)
    retry_failed_pods(trained)
    evaluated = evaluate(
        spec=evaluate_spec,
        root=root,
        examples=examples,
        transformed=transformed,
        model=trained.outputs["model"],
    )
    evaluated.set_display_name("Evaluate")
    return Member(trained.outputs["model"], evaluated.outputs["evaluation"])
