"""The pipeline `train`: from raw data to a published model."""

from typing import NamedTuple

from kfp import dsl
from tidemill.components.fan_out.component import fan_out
from tidemill.components.publish.component import publish
from tidemill.pipelines.nested.member.pipeline import member
from tidemill.pipelines.nested.published_model.pipeline import published_model
from tidemill.pipelines.training_tasks import prepare_data, set_requests, set_small_requests


class Train(NamedTuple):
    """The outputs of `train`."""

    model: dsl.Model


@dsl.pipeline(name="tidemill-train")
def train(experiment: str, root: str) -> Train:
    """Trains and evaluates each model of the experiment, and publishes the best one that passes the gates.

    Args:
        experiment: The experiment file's text. `tidemill validate --resolved FILE` prints it with its SQL inline.
        root: URI of a folder for specs, checkpoints, models and records of failures, for example gs://bucket/tidemill.

    Returns:
        model: The published version.
    """
    data = prepare_data(experiment, root)
    members = fan_out(items=data.plan.outputs["members"]).set_display_name("Members")
    set_small_requests(members)
    with dsl.ParallelFor(members.output, name="member") as item:
        # KFP cannot pass resource settings into a loop, but it can pass them into a nested pipeline.
        trained = member(
            train_spec=item.train,
            evaluate_spec=item.evaluate,
            root=root,
            examples=data.ingest.outputs["examples"],
            transformed=data.preprocess.outputs["transformed"],
            transform_graph=data.preprocess.outputs["transform_graph"],
            cpu=item.cpu,
            cpu_limit=item.cpu_limit,
            memory=item.memory,
            memory_limit=item.memory_limit,
            gpus=item.gpus,
            node_selector=item.node_selector,
            tolerations=item.tolerations,
            node_affinity=item.node_affinity,
            evaluate_cpu=item.evaluate_cpu,
            evaluate_memory=item.evaluate_memory,
        )
    published = publish(
        spec=data.plan.outputs["publish"],
        root=root,
        models=dsl.Collected(trained.outputs["model"]),
        evaluations=dsl.Collected(trained.outputs["evaluation"]),
        statistics=data.validate.outputs["statistics"],
    )
    set_requests(published.set_display_name("Publish"), data.plan, "publish")
    model = published_model(uri=published.outputs["uri"]).set_display_name("Published model")
    return Train(model.outputs["model"])
