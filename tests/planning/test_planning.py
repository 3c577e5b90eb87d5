"""Planning of training pipelines: mistakes that it reports early, and the settings that reach the steps."""

import json

import pytest

from tidemill.errors import Code, TidemillError
from tidemill.experiment import parse
from tidemill.planning import plan_training
from tidemill.runtime import CPU_ONLY
from tidemill.steps.core.spec import spec_document

NO_VALID = {"train": 0.9, "valid": 0, "test": 0.1}


def plan(folder, cross_validate=False, **changes):
    table = folder / "t.csv"
    table.write_text("x,y\n1,0\n2,1\n")
    experiment = {
        "name": "small",
        "source": {"tables": {"t": str(table)}},
        "label": "y",
        "features": {"x": {"kind": "numeric"}},
        "models": [{"family": "gbdt"}],
    }
    return plan_training(parse(json.dumps(experiment | changes)), str(folder / "root"), cross_validate)


@pytest.mark.parametrize(
    ("fractions", "where"),
    [({"train": 0.9, "valid": 0.1, "test": 0}, "split.fractions.test"), (NO_VALID, "split.fractions.valid")],
)
def test_rejects_an_empty_split_that_a_later_step_needs(tmp_path, fractions, where):
    with pytest.raises(TidemillError) as caught:
        plan(tmp_path, split={"fractions": fractions})
    assert (caught.value.code, caught.value.where) == (Code.EMPTY_SPLIT, where)
    assert not (tmp_path / "root").exists()


def test_accepts_an_empty_valid_split_without_early_stopping(tmp_path):
    assert plan(tmp_path, split={"fractions": NO_VALID}, training={"early_stopping": None})["ingest"]


def test_rejects_a_schema_that_is_not_text(tmp_path):
    schema = tmp_path / "schema.pb"
    schema.write_bytes(b"\x0a\xff\xfe")
    with pytest.raises(TidemillError, match="not UTF-8 text") as caught:
        plan(tmp_path, validation={"schema": str(schema)})
    assert caught.value.code is Code.UNREADABLE_FILE


@pytest.mark.parametrize(
    ("text", "environment", "code", "said"),
    [
        ("feature {", "TRAINING", Code.INVALID_VALUE, "does not parse"),
        ('sparse_feature { name: "s" }', "TRAINING", Code.UNSUPPORTED, "sparse_feature 's', which Tidemill does not"),
        ('default_environment: "TRAIN"', "TRAINING", Code.INVALID_VALUE, "the schema names 'TRAIN'"),
        ('default_environment: "TRAIN" feature { name: "x" type: INT drift_comparator {} }', "TRAIN", None, ""),
    ],
)
def test_reports_mistakes_in_a_schema_before_a_step_starts(tmp_path, text, environment, code, said):
    (tmp_path / "schema.pbtxt").write_text(text)
    validation = {"schema": str(tmp_path / "schema.pbtxt"), "environment": environment}
    if code is None:
        spec = spec_document(plan(tmp_path, validation=validation)["validate"])
        assert (spec["schema_text"], spec["environment"]) == (text, environment)
        return
    with pytest.raises(TidemillError, match=said) as caught:
        plan(tmp_path, validation=validation)
    assert caught.value.code is code


def test_settings_of_the_engine_reach_preprocess(tmp_path):
    settings = {"runner": "flink", "options": ["--temp_location=gs://b/t"], "local_limit": "2GiB"}
    spec = spec_document(plan(tmp_path, compute={"preprocess": settings | {"cpu": "8"}})["preprocess"])
    assert {name: spec[name] for name in settings} == settings | {"local_limit": 2 << 30}
    assert (spec["engine"], spec["analyzer_cache"]) == ("auto", False)
    assert "cpu" not in spec


@pytest.mark.parametrize(
    ("split", "ensemble", "method"),
    [
        ({"by": "random"}, {}, "stack"),
        ({"by": "time", "column": "id"}, {}, "mean"),
        ({"by": "time", "column": "id"}, {"method": "stack"}, "stack"),
    ],
    ids=["random", "time", "explicit"],
)
def test_chooses_the_ensemble_method_by_the_split(tmp_path, split, ensemble, method):
    planned = plan(tmp_path, True, split=split, ensemble=ensemble, models=[{"family": "gbdt"}, {"family": "lr"}])
    ensembles = [spec_document(each["ensemble"]) for each in json.loads(planned["ensembles"])]
    methods = {each["name"]: each["ensemble"]["method"] for each in ensembles}
    assert methods == {"gbdt": "mean", "lr": "mean", "ensemble": method}


def test_plans_no_gpu_where_every_step_runs_in_the_cpu_image(tmp_path, monkeypatch):
    """`tidemill compile --cpu-only` sets the variable for the planning steps."""
    train = {"gpu": 1, "gpu_type": "nvidia-l4", "machine": "g2-standard-8", "spot": True}
    [member] = json.loads(plan(tmp_path, compute={"train": train})["members"])
    assert (member["gpus"], len(member["node_selector"]), len(member["tolerations"])) == ("1", 2, 2)
    monkeypatch.setenv(CPU_ONLY, "1")
    [member] = json.loads(plan(tmp_path, compute={"train": train})["members"])
    assert (member["gpus"], member["node_selector"], len(member["tolerations"])) == ("", {}, 1)


@pytest.mark.parametrize(("cross_validate", "lengths"), [(False, (1, 0, 0)), (True, (0, 2, 1))])
def test_a_single_model_leaves_no_loop_empty(tmp_path, cross_validate, lengths):
    """Kubeflow's driver fails where it collects the artifacts of a loop without iterations."""
    planned = plan(tmp_path, cross_validate, training={"folds": 2})
    assert tuple(len(json.loads(planned[name])) for name in ("members", "folds", "ensembles")) == lengths


def test_each_step_gets_its_resources(tmp_path):
    planned = plan(tmp_path, compute={"ingest": {"cpu": "2"}, "evaluate": {"memory": "9Gi"}})
    assert (planned["ingest_cpu"], planned["ingest_memory"], planned["publish_memory"]) == ("2", "3Gi", "2Gi")
    [member] = json.loads(planned["members"])
    assert (member["cpu"], member["evaluate_cpu"], member["evaluate_memory"]) == ("1", "1", "9Gi")
    ensembles = plan(tmp_path, cross_validate=True, compute={"ensemble": {"cpu": "3"}})["ensembles"]
    assert {(each["cpu"], each["evaluate_memory"]) for each in json.loads(ensembles)} == {("3", "4Gi")}
