"""The component `pack_models`: copies a list of models into one artifact."""

from typing import List  # noqa: UP035 - kfp reads the annotation by this name

from kfp import dsl
from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def pack_models(
    spec: str,
    root: str,
    models: dsl.Input[List[dsl.Model]],  # noqa: UP006
    schema: dsl.Input[dsl.Artifact],
    packed: dsl.Output[dsl.Artifact],
):
    """Copies the models of a loop into one artifact, without their exports for serving.

    Kubeflow passes only one artifact of a list into a loop or a nested pipeline. One artifact arrives as it is.

    Args:
        spec: URI of the spec, from `plan_training`. It holds only the code's fingerprint.
        root: URI of the folder for records of failures.
        models: The models of `train`, in any order.
        schema: The schema of `validate`. Kubeflow needs it to find models of earlier runs, because in a list it looks
            only at the first artifact. The step does not read it.
        packed: The models, each in a folder of its own with weights, `model.json`, history and out-of-fold scores.
    """
    from tidemill.ensembling.pack import pack_models as run
    from tidemill.runtime import step
    from tidemill.steps.pack_models import PackModelsSpec

    with step("pack_models", root=root, output=packed.uri):
        PackModelsSpec.read(spec)
        fingerprint = run([model.path for model in models], packed.path)
    packed.metadata.update(fingerprint=fingerprint, models=len(models))
