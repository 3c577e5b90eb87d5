"""From raw data to an evaluated, published ensemble."""

from kfp import dsl
from tidemill.components.ensemble.component import ensemble
from tidemill.components.evaluate.component import evaluate
from tidemill.components.fan_out.component import fan_out
from tidemill.components.publish.component import publish
from tidemill.pipelines.folds.pipeline import folds as train_folds
from tidemill.pipelines.parts import prepare


@dsl.pipeline(name="tidemill-cross-validate")
def cross_validate(experiment: str, root: str):
    """Reads, checks and transforms the data, trains every model of the experiment once a fold, makes an ensemble of
    each member's models and one of all, and publishes the best that passes the gates.

    Args:
        experiment: The experiment file's text. `tidemill validate --resolved FILE` prints it with its SQL inline.
        root: URI of a folder for source records, checkpoints and models, for example gs://bucket/tidemill.
    """
    plan, examples, checked, features = prepare(experiment, root, cross_validate=True)
    folds = fan_out(items=plan.outputs["folds"]).set_display_name("Folds")
    # A list that a loop collects goes into another loop by way of a nested pipeline alone.
    trained = train_folds(
        items=folds.output,
        root=root,
        examples=examples.outputs["examples"],
        transformed=features.outputs["transformed"],
        transform_graph=features.outputs["transform_graph"],
    )
    ensembles = fan_out(items=plan.outputs["ensembles"]).set_display_name("Ensembles")
    with dsl.ParallelFor(ensembles.output, name="ensemble") as item:
        together = ensemble(
            spec=item.ensemble,
            models=trained.outputs["models"],
            examples=examples.outputs["examples"],
            transformed=features.outputs["transformed"],
            transform_graph=features.outputs["transform_graph"],
        )
        together.set_display_name("Ensemble")
        evaluated = evaluate(
            spec=item.evaluate,
            examples=examples.outputs["examples"],
            transformed=features.outputs["transformed"],
            model=together.outputs["model"],
        )
        evaluated.set_display_name("Evaluate")
    published = publish(
        spec=plan.outputs["publish"],
        root=root,
        models=dsl.Collected(together.outputs["model"]),
        evaluations=dsl.Collected(evaluated.outputs["evaluation"]),
        statistics=checked.outputs["statistics"],
    )
    published.set_display_name("Publish")
