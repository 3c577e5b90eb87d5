"""What docs/caching.md says about cache keys, where no other test checks it."""

from __future__ import annotations

from tests.docs.samples import EXPERIMENT
from tidemill.experiment import parse
from tidemill.local.pipeline_runner import without_resources
from tidemill.steps import train
from tidemill.steps.core.context import TrainingPlanContext


def test_resources_are_in_no_key():
    requests = {
        "cpu_limit": "{{$.inputs.parameters['pipelinechannel--cpu']}}",
        "pipelinechannel--cpu": "4",
        "pipelinechannel--plan-training-preprocess_memory": "16Gi",
    }
    arguments = {"root": "gs://bucket/root", "spec": '{"step": "train"}', "items": ["a"]}
    assert without_resources({**arguments, **requests}) == arguments


def test_the_number_of_folds_is_in_no_spec_of_train():
    specs = []
    for folds in (3, 5):
        experiment = parse(f"{EXPERIMENT}training: {{folds: {folds}}}\n")
        fields = {"source_fingerprint": "", "schema_text": None, "baseline": None, "warm_start": None}
        specs.append(train.plan(TrainingPlanContext(experiment=experiment, **fields)))
    assert specs[0] == specs[1]
