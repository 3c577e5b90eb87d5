"""From raw data to an evaluated, published model."""

from kfp import dsl
from tidemill.components.fan_out.component import fan_out
from tidemill.components.publish.component import publish
from tidemill.pipelines.member.pipeline import member as train_and_evaluate
from tidemill.pipelines.parts import prepare


@dsl.pipeline(name="tidemill-train")
def train(experiment: str, root: str):
    """Reads, checks and transforms the data, trains every model of the experiment, and publishes the best one that
    passes the gates.

    Args:
        experiment: The experiment file's text. `tidemill validate --resolved FILE` prints it with its SQL inline.
        root: URI of a folder for source records, checkpoints and models, for example gs://bucket/tidemill.
    """
    plan, examples, checked, features = prepare(experiment, root)
    members = fan_out(items=plan.outputs["members"]).set_display_name("Members")
    with dsl.ParallelFor(members.output, name="member") as item:
        # kfp passes what only a resource setting reads into a nested pipeline, but not into a loop.
        member = train_and_evaluate(
            train_spec=item.train,
            evaluate_spec=item.evaluate,
            root=root,
            examples=examples.outputs["examples"],
            transformed=features.outputs["transformed"],
            transform_graph=features.outputs["transform_graph"],
            cpu=item.cpu,
            memory=item.memory,
            accelerator_type=item.accelerator_type,
            accelerator_count=item.accelerator_count,
            node_selector=item.node_selector,
            tolerations=item.tolerations,
        )
    published = publish(
        spec=plan.outputs["publish"],
        root=root,
        models=dsl.Collected(member.outputs["model"]),
        evaluations=dsl.Collected(member.outputs["evaluation"]),
        statistics=checked.outputs["statistics"],
    )
    published.set_display_name("Publish")
