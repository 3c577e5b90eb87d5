"""From raw data to an evaluated, published model."""

from kfp import dsl
from tidemill.components.fan_out.component import fan_out
from tidemill.components.ingest.component import ingest
from tidemill.components.plan_training.component import plan_training
from tidemill.components.preprocess.component import preprocess
from tidemill.components.publish.component import publish
from tidemill.components.validate.component import validate
from tidemill.pipelines.member.pipeline import member as train_and_evaluate


@dsl.pipeline(name="tidemill-train")
def train(experiment: str, root: str):
    """Reads, checks and transforms the data, trains every model of the experiment, and publishes the best one that
    passes the gates.

    Args:
        experiment: The experiment file's text. `tidemill validate --resolved FILE` prints it with its SQL inline.
        root: URI of a folder for source records, checkpoints and models, for example gs://bucket/tidemill.
    """
    plan = plan_training(experiment=experiment, root=root).set_caching_options(False).set_display_name("Plan")
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
