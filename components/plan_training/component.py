"""Cuts an experiment into the specs of the training steps."""

from kfp import dsl
from tidemill.components import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def plan_training(
    experiment: str,
    root: str,
    ingest: dsl.OutputPath(str),
    validate: dsl.OutputPath(str),
    preprocess: dsl.OutputPath(str),
    members: dsl.OutputPath(str),
    folds: dsl.OutputPath(str),
    ensembles: dsl.OutputPath(str),
    publish: dsl.OutputPath(str),
    preprocess_cpu: dsl.OutputPath(str),
    preprocess_memory: dsl.OutputPath(str),
    cross_validate: bool = False,
):
    """Cuts an experiment into the specs of the training steps, and looks at the sources and at the published models.

    Never cache this step: it is how a changed input file is noticed. The specs change only with what they describe,
    so that the steps after it are cached by content.

    Args:
        experiment: The experiment file's text (YAML or JSON), with SQL and transform module inline.
        root: URI of the folder where Tidemill keeps source records, checkpoints and models.
        cross_validate: Whether `folds` and `ensembles` will be used, which experiments with several labels do not have.
        ingest: Spec of `ingest`.
        validate: Spec of `validate`.
        preprocess: Spec of `preprocess`.
        members: List with the specs of `train` and `evaluate` and the placement of each member, for `fan_out`.
        folds: As `members`, an entry for each member and fold, without `evaluate`.
        ensembles: List with the specs of `ensemble` and `evaluate` of each ensemble, for `fan_out`.
        publish: Spec of `publish`.
        preprocess_cpu: CPU cores that the experiment gives to `preprocess`.
        preprocess_memory: Memory that the experiment gives to `preprocess`.
    """
    from pathlib import Path

    from tidemill.experiment import parse
    from tidemill.planning import plan_training as run
    from tidemill.runtime import step

    with step("plan_training"):
        specs = run(parse(experiment), root, cross_validate)
    paths = {"ingest": ingest, "validate": validate, "preprocess": preprocess, "members": members, "publish": publish}
    paths |= {"folds": folds, "ensembles": ensembles}
    paths |= {"preprocess_cpu": preprocess_cpu, "preprocess_memory": preprocess_memory}
    for name, path in paths.items():
        Path(path).write_text(specs[name], encoding="utf-8")
