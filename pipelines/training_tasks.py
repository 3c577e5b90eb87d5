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

GPU = "nvidia.com/gpu"
"""The resource of which training steps request some."""


class DataTasks(NamedTuple):
    """The tasks before training."""

    plan: dsl.PipelineTask
    ingest: dsl.PipelineTask
    validate: dsl.PipelineTask
    preprocess: dsl.PipelineTask


def prepare_data(experiment: str, root: str, *, cross_validate: bool = False) -> DataTasks:
    """Adds the tasks that plan, read, validate and transform the data."""
    planned = plan_training(experiment=experiment, root=root, cross_validate=cross_validate)
    set_small_requests(planned.set_caching_options(False).set_display_name("Plan"))
    ingested = ingest(spec=planned.outputs["ingest"], root=root).set_display_name("Ingest")
    set_requests(ingested, planned, "ingest")
    validated = validate(spec=planned.outputs["validate"], root=root, examples=ingested.outputs["examples"])
    set_requests(validated.set_display_name("Validate"), planned, "validate")
    preprocessed = preprocess(
        spec=planned.outputs["preprocess"],
        root=root,
        examples=ingested.outputs["examples"],
        schema=validated.outputs["schema"],
    )
    set_requests(preprocessed.set_display_name("Preprocess"), planned, "preprocess")
    return DataTasks(planned, ingested, validated, preprocessed)


def set_small_requests(task: dsl.PipelineTask) -> None:
    """Reserves little for a task that reads no rows."""
    task.set_cpu_request("250m").set_memory_request("512Mi")


def set_requests(task: dsl.PipelineTask, planned: dsl.PipelineTask, step: str) -> None:
    """Sets a task's CPU cores and memory from the outputs of planning. Kubernetes reserves as much as it allows."""
    task.set_cpu_limit(planned.outputs[f"{step}_cpu"]).set_memory_limit(planned.outputs[f"{step}_memory"])


def set_placement(
    task: dsl.PipelineTask,
    *,
    cpu: str,
    cpu_limit: str,
    memory: str,
    memory_limit: str,
    gpus: str,
    node_selector: dict,
    tolerations: list,
    node_affinity: dict,
) -> None:
    """Sets a task's resources and nodes from the values of `tidemill.experiment.placement`."""
    task.set_cpu_request(cpu).set_cpu_limit(cpu_limit).set_memory_request(memory).set_memory_limit(memory_limit)
    task.set_accelerator_type(GPU).set_accelerator_limit(gpus)
    kubernetes.add_node_selector_json(task, node_selector_json=node_selector)
    kubernetes.add_toleration_json(task, toleration_json=tolerations)
    kubernetes.add_node_affinity_json(task, node_affinity_json=node_affinity)
    # JAX and worker processes share memory there, and Kubernetes gives a container only 64 MiB.
    kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory")


def retry_failed_pods(task: dsl.PipelineTask) -> None:
    """Lets Kubeflow start the pod of a task again.

    Argo ends a pod when the maximum duration of all attempts has passed, even one that was never started again, and
    Kubeflow's default is an hour. The maximum is therefore four weeks. kfp.local waits for the backoff too, also
    between attempts that end at once with a recorded error, so the backoff is short.
    """
    task.set_retry(num_retries=MAX_RETRIES, backoff_duration="1s", backoff_factor=1.0, backoff_max_duration="4 weeks")
