"""From raw data to an evaluated, published model."""

from kfp import dsl

from tidemill.components.evaluate.component import evaluate
from tidemill.components.fan_out.component import fan_out
from tidemill.components.ingest.component import ingest
from tidemill.components.plan_training.component import plan_training
from tidemill.components.preprocess.component import preprocess
from tidemill.components.publish.component import publish
from tidemill.components.train.component import train as train_member
from tidemill.components.validate.component import validate


@dsl.pipeline(name="tidemill-train")
def train(
    experiment: str,
    root: str,
    train_cpu: str = "4",
    train_memory: str = "16Gi",
    train_accelerator_type: str = "nvidia.com/gpu",
    train_accelerator_count: str = "0",
    preprocess_cpu: str = "4",
    preprocess_memory: str = "16Gi",
):
    """Reads, checks and transforms the data, trains every model of the experiment, and publishes the best one that passes
    the gates.

    Args:
        experiment: The experiment file's text. `tidemill validate --resolved FILE` prints it with its SQL inline.
        root: URI of a folder for source records, checkpoints and models, for example gs://bucket/tidemill.
        train_cpu: CPU cores of a training step.
        train_memory: Memory of a training step.
        train_accelerator_type: The cluster's name of the accelerator resource.
        train_accelerator_count: Accelerators of a training step; 0 trains on the CPU.
        preprocess_cpu: CPU cores of the preprocessing step.
        preprocess_memory: Memory of the preprocessing step.
    """
    plan = plan_training(experiment=experiment, root=root).set_caching_options(False).set_display_name("Plan")
    examples = ingest(spec=plan.outputs["ingest"], root=root).set_display_name("Ingest")
    checked = validate(spec=plan.outputs["validate"], examples=examples.outputs["examples"])
    checked.set_display_name("Validate")
    features = preprocess(
        spec=plan.outputs["preprocess"],
        examples=examples.outputs["examples"],
        schema=checked.outputs["schema"],
    )
    features.set_display_name("Preprocess").set_cpu_limit(preprocess_cpu).set_memory_limit(preprocess_memory)
    members = fan_out(items=plan.outputs["members"]).set_display_name("Members")
    with dsl.ParallelFor(members.output, name="member") as member:
        trained = train_member(
            spec=member.train,
            root=root,
            examples=examples.outputs["examples"],
            transformed=features.outputs["transformed"],
            transform_graph=features.outputs["transform_graph"],
        )
        trained.set_display_name("Train").set_cpu_limit(train_cpu).set_memory_limit(train_memory)
        trained.set_accelerator_type(train_accelerator_type).set_accelerator_limit(train_accelerator_count)
        evaluated = evaluate(
            spec=member.evaluate,
            examples=examples.outputs["examples"],
            transformed=features.outputs["transformed"],
            model=trained.outputs["model"],
        )
        evaluated.set_display_name("Evaluate")
    published = publish(
        spec=plan.outputs["publish"],
        root=root,
        models=dsl.Collected(trained.outputs["model"]),
        evaluations=dsl.Collected(evaluated.outputs["evaluation"]),
        statistics=checked.outputs["statistics"],
    )
    published.set_display_name("Publish")
