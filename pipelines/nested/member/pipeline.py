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
    cpu_limit: str,
    memory: str,
    memory_limit: str,
    gpus: str,
    node_selector: dict,
    tolerations: list,
    node_affinity: dict,
    evaluate_cpu: str,
    evaluate_memory: str,
) -> Member:
    """Trains one member and evaluates it.

    Args:
        train_spec: URI of the spec of `train`.
        evaluate_spec: URI of the spec of `evaluate`.
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
        evaluate_cpu: CPU cores of the evaluation.
        evaluate_memory: Memory of the evaluation.

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
    evaluated = evaluate(
        spec=evaluate_spec,
        root=root,
        examples=examples,
        transformed=transformed,
        model=trained.outputs["model"],
    )
    evaluated.set_cpu_limit(evaluate_cpu).set_memory_limit(evaluate_memory).set_display_name("Evaluate")
    return Member(trained.outputs["model"], evaluated.outputs["evaluation"])
