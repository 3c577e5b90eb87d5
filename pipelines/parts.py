"""What pipelines have in common. Called within a pipeline's function; the compiled YAML holds the tasks."""

from typing import NamedTuple

from kfp import dsl, kubernetes
from tidemill.components.ingest.component import ingest
from tidemill.components.plan_training.component import plan_training
from tidemill.components.preprocess.component import preprocess
from tidemill.components.validate.component import validate

ATTEMPTS_AGAIN = 20
"""How often a training may be started again, on a cluster. The errors among them have a smaller budget of their own,
`training.retries`: see `tidemill.training.attempts`."""


class Prepared(NamedTuple):
    """The tasks before training."""

    plan: dsl.PipelineTask
    examples: dsl.PipelineTask
    checked: dsl.PipelineTask
    features: dsl.PipelineTask


def prepare(experiment: str, root: str, *, cross_validate: bool = False) -> Prepared:
    """Plans, reads, checks and transforms."""
    plan = plan_training(experiment=experiment, root=root, cross_validate=cross_validate)
    plan.set_caching_options(False).set_display_name("Plan")
    examples = ingest(spec=plan.outputs["ingest"], root=root).set_display_name("Ingest")
    checked = validate(spec=plan.outputs["validate"], examples=examples.outputs["examples"])
    checked.set_display_name("Validate")
    features = preprocess(
        spec=plan.outputs["preprocess"],
        root=root,
        examples=examples.outputs["examples"],
        schema=checked.outputs["schema"],
    )
    features.set_cpu_limit(plan.outputs["preprocess_cpu"]).set_memory_limit(plan.outputs["preprocess_memory"])
    features.set_display_name("Preprocess")
    return Prepared(plan, examples, checked, features)


def place(
    task: dsl.PipelineTask,
    cpu: str,
    memory: str,
    accelerator_type: str,
    accelerator_count: str,
    node_selector: dict,
    tolerations: list,
) -> None:
    """Gives a task its resources and nodes: the values of `tidemill.planning.placement`."""
    task.set_cpu_limit(cpu).set_memory_limit(memory)
    task.set_accelerator_type(accelerator_type).set_accelerator_limit(accelerator_count)
    kubernetes.add_node_selector_json(task, node_selector_json=node_selector)
    kubernetes.add_toleration_json(task, toleration_json=tolerations)


def try_again(task: dsl.PipelineTask) -> None:
    """Lets Kubeflow start a task again when its pod fails. Argo ends a pod when the longest time of all attempts is
    through, also one that was never started again, and Kubeflow's own limit is an hour: hence the weeks."""
    task.set_retry(
        num_retries=ATTEMPTS_AGAIN, backoff_duration="15s", backoff_factor=1.0, backoff_max_duration="4 weeks"
    )
