"""The pipeline `cross_validate`: from raw data to a published ensemble."""

from typing import NamedTuple

from kfp import dsl
from tidemill.components.ensemble.component import ensemble
from tidemill.components.evaluate.component import evaluate
from tidemill.components.fan_out.component import fan_out
from tidemill.components.pack_models.component import pack_models
from tidemill.components.publish.component import publish
from tidemill.pipelines.nested.fold.pipeline import fold
from tidemill.pipelines.nested.published_model.pipeline import published_model
from tidemill.pipelines.training_tasks import prepare_data


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
    with dsl.ParallelFor(folds.output, name="fold") as item:
        # KFP cannot pass resource settings into a loop, but it can pass them into a nested pipeline.
        trained = fold(
            train_spec=item.train,
            root=root,
            examples=data.ingest.outputs["examples"],
            transformed=data.preprocess.outputs["transformed"],
            transform_graph=data.preprocess.outputs["transform_graph"],
            cpu=item.cpu,
            memory=item.memory,
            accelerator_type=item.accelerator_type,
            accelerator_count=item.accelerator_count,
            node_selector=item.node_selector,
            tolerations=item.tolerations,
        )
    # Of a list of artifacts only one reaches a loop on a cluster.
    packed = pack_models(
        spec=data.plan.outputs["pack_models"], root=root, models=dsl.Collected(trained.outputs["model"])
    )
    packed.set_display_name("Pack models")
    ensembles = fan_out(items=data.plan.outputs["ensembles"]).set_display_name("Ensembles")
    with dsl.ParallelFor(ensembles.output, name="ensemble") as item:
        combined = ensemble(
            spec=item.ensemble,
            root=root,
            models=packed.outputs["packed"],
            examples=data.ingest.outputs["examples"],
            transformed=data.preprocess.outputs["transformed"],
            transform_graph=data.preprocess.outputs["transform_graph"],
        )
        combined.set_display_name("Ensemble")
        evaluated = evaluate(
            spec=item.evaluate,
            root=root,
            examples=data.ingest.outputs["examples"],
            transformed=data.preprocess.outputs["transformed"],
            model=combined.outputs["model"],
        )
        evaluated.set_display_name("Evaluate")
    published = publish(
        spec=data.plan.outputs["publish"],
        root=root,
        models=dsl.Collected(combined.outputs["model"]),
        evaluations=dsl.Collected(evaluated.outputs["evaluation"]),
        statistics=data.validate.outputs["statistics"],
    )
    published.set_display_name("Publish")
    model = published_model(uri=published.outputs["uri"]).set_display_name("Published model")
    return CrossValidate(model.outputs["model"])
