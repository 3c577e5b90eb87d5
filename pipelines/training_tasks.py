"""Tasks and settings that the training pipelines share. Call them inside a pipeline function."""

from typing import NamedTuple

from kfp import dsl, kubernetes
from tidemill.components.ingest.component import ingest
from tidemill.components.plan_training.component import plan_training
from tidemill.components.preprocess.component import preprocess
from tidemill.components.validate.component import validate

MAX_RETRIES = 20
"""How often Kubeflow starts the pod of a `train` step again. Attempts after errors have a smaller budget of their own,
`training.retries`: see `tidemill.failure_record`."""


class DataTasks(NamedTuple):
    """The tasks before training."""

    plan: dsl.PipelineTask
    ingest: dsl.PipelineTask
    validate: dsl.PipelineTask
    preprocess: dsl.PipelineTask


def prepare_data(experiment: str, root: str, *, cross_validate: bool = False) -> DataTasks:
    """Adds the tasks that plan, read, validate and transform the data."""
    planned = plan_training(experiment=experiment, root=root, cross_validate=cross_validate)
    planned.set_caching_options(False).set_display_name("Plan")
    ingested = ingest(spec=planned.outputs["ingest"], root=root).set_display_name("Ingest")
    validated = validate(spec=planned.outputs["validate"], root=root, examples=ingested.outputs["examples"])
    validated.set_display_name("Validate")
    preprocessed = preprocess(
        spec=planned.outputs["preprocess"],
        root=root,
        examples=ingested.outputs["examples"],
        schema=validated.outputs["schema"],
    )
    preprocessed.set_cpu_limit(planned.outputs["preprocess_cpu"])
    preprocessed.set_memory_limit(planned.outputs["preprocess_memory"]).set_display_name("Preprocess")
    return DataTasks(planned, ingested, validated, preprocessed)


def set_placement(
    task: dsl.PipelineTask,
    cpu: str,
    memory: str,
    accelerator_type: str,
    accelerator_count: str,
    node_selector: dict,
    tolerations: list,
) -> None:
    """Sets a task's resources and nodes from the values of `tidemill.planning.placement`."""
    task.set_cpu_limit(cpu).set_memory_limit(memory)
    task.set_accelerator_type(accelerator_type).set_accelerator_limit(accelerator_count)
    kubernetes.add_node_selector_json(task, node_selector_json=node_selector)
    kubernetes.add_toleration_json(task, toleration_json=tolerations)


def retry_failed_pods(task: dsl.PipelineTask) -> None:
    """Lets Kubeflow start the pod of a task again.

    Argo ends a pod when the maximum duration of all attempts has passed, even one that was never started again, and
    Kubeflow's default is an hour. The maximum is therefore four weeks. kfp.local waits for the backoff too, also
    between attempts that end at once with a recorded error, so the backoff is short.
    """
    task.set_retry(num_retries=MAX_RETRIES, backoff_duration="1s", backoff_factor=1.0, backoff_max_duration="4 weeks")
