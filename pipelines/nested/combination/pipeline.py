"""The nested pipeline `combination`: combines models of folds into an ensemble, and evaluates it."""

from typing import NamedTuple

from kfp import dsl
from tidemill.components.ensemble.component import ensemble
from tidemill.components.evaluate.component import evaluate


class Combination(NamedTuple):
    """The outputs of `combination`."""

    model: dsl.Model
    evaluation: dsl.Artifact


@dsl.pipeline(name="tidemill-combination")
def combination(
    ensemble_spec: str,
    evaluate_spec: str,
    root: str,
    models: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    cpu: str,
    memory: str,
    evaluate_cpu: str,
    evaluate_memory: str,
) -> Combination:
    """Combines the models of one or all members, and evaluates the ensemble.

    Args:
        ensemble_spec: URI of the spec of `ensemble`.
        evaluate_spec: URI of the spec of `evaluate`.
        root: URI of the folder for records of failures.
        models: The packed models of `pack_models`.
        examples: The examples of `ingest`.
        transformed: The transformed examples of `preprocess`.
        transform_graph: The transform graph of `preprocess`.
        cpu: CPU cores of `ensemble`.
        memory: Memory of `ensemble`.
        evaluate_cpu: CPU cores of the evaluation.
        evaluate_memory: Memory of the evaluation.

    Returns:
        model: The ensemble.
        evaluation: The evaluation of `evaluate`.
    """
    combined = ensemble(
        spec=ensemble_spec,
        root=root,
        models=models,
        examples=examples,
        transformed=transformed,
        transform_graph=transform_graph,
    )
    combined.set_cpu_limit(cpu).set_memory_limit(memory).set_display_name("Ensemble")
    evaluated = evaluate(
        spec=evaluate_spec,
        root=root,
        examples=examples,
        transformed=transformed,
        model=combined.outputs["model"],
    )
    evaluated.set_cpu_limit(evaluate_cpu).set_memory_limit(evaluate_memory).set_display_name("Evaluate")
    return Combination(combined.outputs["model"], evaluated.outputs["evaluation"])
