"""The component `plan_training`: plans the training pipelines."""

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def plan_training(
    experiment: str,
    root: str,
    ingest: dsl.OutputPath(str),
    validate: dsl.OutputPath(str),
    preprocess: dsl.OutputPath(str),
    members: dsl.OutputPath(str),
    folds: dsl.OutputPath(str),
    ensembles: dsl.OutputPath(str),
    pack_models: dsl.OutputPath(str),
    publish: dsl.OutputPath(str),
    ingest_cpu: dsl.OutputPath(str),
    ingest_memory: dsl.OutputPath(str),
    validate_cpu: dsl.OutputPath(str),
    validate_memory: dsl.OutputPath(str),
    preprocess_cpu: dsl.OutputPath(str),
    preprocess_memory: dsl.OutputPath(str),
    publish_cpu: dsl.OutputPath(str),
    publish_memory: dsl.OutputPath(str),
    summary: dsl.Output[dsl.Markdown],
    cross_validate: bool = False,
):
    """Turns an experiment into the specs of the training steps, and looks at the sources and the published models.

    Do not cache this step. It notices changed source files and newer published models. A spec changes only if its
    step's settings, code or sources change, so that later steps are cached by content.

    Args:
        experiment: The experiment file's text, YAML or JSON, with the SQL and the transform module inline.
        root: URI of the folder for source records, specs, checkpoints, models and records of failures.
        cross_validate: Whether the pipeline uses `folds` and `ensembles`. They need one label.
        ingest: URI of the spec of `ingest`.
        validate: URI of the spec of `validate`.
        preprocess: URI of the spec of `preprocess`.
        members: JSON list for `fan_out` with the URIs of the specs of `train` and `evaluate`, and the placement of each
            member. Empty for a cross-validation.
        folds: JSON list for `fan_out` with the URI of the spec of `train`, and the placement of each member and fold.
        ensembles: JSON list for `fan_out` with the URIs of the specs of `ensemble` and `evaluate` of each ensemble, and
            their resources.
        pack_models: URI of the spec of `pack_models`.
        publish: URI of the spec of `publish`.
        ingest_cpu: CPU cores of `ingest`.
        ingest_memory: Memory of `ingest`.
        validate_cpu: CPU cores of `validate`.
        validate_memory: Memory of `validate`.
        preprocess_cpu: CPU cores of `preprocess`.
        preprocess_memory: Memory of `preprocess`.
        publish_cpu: CPU cores of `publish`.
        publish_memory: Memory of `publish`.
        summary: What was planned: the sources, the steps and where their specs are.
    """
    from pathlib import Path

    from tidemill.experiment import parse
    from tidemill.planning import plan_training as run
    from tidemill.runtime import step

    with step("plan_training", root=root, output=summary.uri):
        specs = run(parse(experiment), root, cross_validate)
    paths = {"ingest": ingest, "validate": validate, "preprocess": preprocess, "members": members, "publish": publish}
    paths |= {"pack_models": pack_models, "summary": summary.path}
    paths |= {"folds": folds, "ensembles": ensembles}
    paths |= {"ingest_cpu": ingest_cpu, "ingest_memory": ingest_memory}
    paths |= {"validate_cpu": validate_cpu, "validate_memory": validate_memory}
    paths |= {"preprocess_cpu": preprocess_cpu, "preprocess_memory": preprocess_memory}
    paths |= {"publish_cpu": publish_cpu, "publish_memory": publish_memory}
    for name, path in paths.items():
        Path(path).write_text(specs[name], encoding="utf-8")
