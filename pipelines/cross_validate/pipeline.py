"""The pipeline `cross_validate`: from raw data to a published ensemble."""

from typing import NamedTuple

from kfp import dsl
from tidemill.components.fan_out.component import fan_out
from tidemill.components.pack_models.component import pack_models
from tidemill.components.publish.component import publish
from tidemill.pipelines.nested.combination.pipeline import combination
from tidemill.pipelines.nested.fold.pipeline import fold
from tidemill.pipelines.nested.published_model.pipeline import published_model
from tidemill.pipelines.training_tasks import prepare_data, set_requests, set_small_requests


class CrossValidate(NamedTuple):
    """The outputs of `cross_validate`."""

    model: dsl.Model


@dsl.pipeline(name="tidemill-cross-validate")
def cross_validate(experiment: str, root: str) -> CrossValidate:
    """Trains each model of the experiment on each fold, combines the models into ensembles, and publishes the best
    ensemble that passes the gates.

    Args:
        experiment: The experiment file's text. `tidemill validate --resolved FILE` prints it with its SQL inline.
        root: URI of a folder for specs, checkpoints, models and records of failures, for example gs://bucket/tidemill.

    Returns:
        model: The published version.
    """
    data = prepare_data(experiment, root, cross_validate=True)
    folds = fan_out(items=data.plan.outputs["folds"]).set_display_name("Folds")
    set_small_requests(folds)
    with dsl.ParallelFor(folds.output, name="fold") as item:
        # KFP cannot pass resource settings into a loop, but it can pass them into a nested pipeline.
        trained = fold(
            train_spec=item.train,
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
        )
    # Of a list of artifacts only one reaches a loop on a cluster. If a model comes from the cache, so does the schema.
    packed = pack_models(
        spec=data.plan.outputs["pack_models"],
        root=root,
        models=dsl.Collected(trained.outputs["model"]),
        schema=data.validate.outputs["schema"],
    )
    set_small_requests(packed.set_display_name("Pack models"))
    ensembles = fan_out(items=data.plan.outputs["ensembles"]).set_display_name("Ensembles")
    set_small_requests(ensembles)
    with dsl.ParallelFor(ensembles.output, name="ensemble") as item:
        combined = combination(
            ensemble_spec=item.ensemble,
            evaluate_spec=item.evaluate,
            root=root,
            models=packed.outputs["packed"],
            examples=data.ingest.outputs["examples"],
            transformed=data.preprocess.outputs["transformed"],
            transform_graph=data.preprocess.outputs["transform_graph"],
            cpu=item.cpu,
            memory=item.memory,
            evaluate_cpu=item.evaluate_cpu,
            evaluate_memory=item.evaluate_memory,
        )
    published = publish(
        spec=data.plan.outputs["publish"],
        root=root,
        models=dsl.Collected(combined.outputs["model"]),
        evaluations=dsl.Collected(combined.outputs["evaluation"]),
        statistics=data.validate.outputs["statistics"],
    )
    set_requests(published.set_display_name("Publish"), data.plan, "publish")
    model = published_model(uri=published.outputs["uri"]).set_display_name("Published model")
    return CrossValidate(model.outputs["model"])
