"""The pipeline `cross_validate`: from raw data to a published ensemble."""

from kfp import dsl
from tidemill.components.ensemble.component import ensemble
from tidemill.components.evaluate.component import evaluate
from tidemill.components.fan_out.component import fan_out
from tidemill.components.publish.component import publish
from tidemill.pipelines.nested.folds.pipeline import folds as train_folds
from tidemill.pipelines.training_tasks import prepare_data


@dsl.pipeline(name="tidemill-cross-validate")
def cross_validate(experiment: str, root: str):
    """Trains each model of the experiment on each fold, combines the models into ensembles, and publishes the best
    ensemble that passes the gates.

    Args:
        experiment: The experiment file's text. `tidemill validate --resolved FILE` prints it with its SQL inline.
        root: URI of a folder for source records, checkpoints and models, for example gs://bucket/tidemill.
    """
    data = prepare_data(experiment, root, cross_validate=True)
    folds = fan_out(items=data.plan.outputs["folds"]).set_display_name("Folds")
    # A list that one loop collects can enter another loop only if it is the output of a nested pipeline.
    trained = train_folds(
        items=folds.output,
        root=root,
        examples=data.ingest.outputs["examples"],
        transformed=data.preprocess.outputs["transformed"],
        transform_graph=data.preprocess.outputs["transform_graph"],
    )
    ensembles = fan_out(items=data.plan.outputs["ensembles"]).set_display_name("Ensembles")
    with dsl.ParallelFor(ensembles.output, name="ensemble") as item:
        combined = ensemble(
            spec=item.ensemble,
            models=trained.outputs["models"],
            examples=data.ingest.outputs["examples"],
            transformed=data.preprocess.outputs["transformed"],
            transform_graph=data.preprocess.outputs["transform_graph"],
        )
        combined.set_display_name("Ensemble")
        evaluated = evaluate(
            spec=item.evaluate,
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
