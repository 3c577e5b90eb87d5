"""Planning of experiments with several labels."""

from __future__ import annotations

import json

import pytest
import yaml

from tidemill.cli.main import main
from tidemill.errors import Code, TidemillError
from tidemill.experiment import parse
from tidemill.planning import plan_training
from tidemill.steps.core.spec import spec_document

MMOE = {"family": "mmoe"}
SEVERAL = ["clicked", "bought"]
OWN = {"family": "own", "module": "FAMILY = None\n"}


def text(folder, **changes) -> str:
    table = folder / "t.csv"
    table.write_text("x,clicked,bought\n1,0,1\n2,1,0\n")
    experiment = {
        "name": "small",
        "source": {"tables": {"t": str(table)}},
        "labels": SEVERAL,
        "features": {"x": {"kind": "numeric"}},
        "models": [MMOE],
    }
    return yaml.safe_dump({key: value for key, value in (experiment | changes).items() if value is not None})


def test_every_spec_has_all_labels(tmp_path):
    plan = plan_training(parse(text(tmp_path)), str(tmp_path / "root"))
    for step in ("ingest", "validate", "preprocess"):
        assert spec_document(plan[step])["labels"] == SEVERAL
    (member,) = json.loads(plan["members"])
    assert spec_document(member["train"])["labels"] == spec_document(member["evaluate"])["labels"] == SEVERAL
    assert json.loads(plan["folds"]) == json.loads(plan["ensembles"]) == []


@pytest.mark.parametrize("one", [{"label": "clicked", "labels": None}, {"labels": ["clicked"]}], ids=str)
def test_label_and_a_list_of_one_label_are_equal(tmp_path, one):
    plan = plan_training(parse(text(tmp_path, **one)), str(tmp_path / "root"), cross_validate=True)
    assert json.loads(plan["members"]) == []
    assert {spec_document(each["train"])["labels"][0] for each in json.loads(plan["folds"])} == {"clicked"}
    assert {spec_document(each["ensemble"])["label"] for each in json.loads(plan["ensembles"])} == {"clicked"}
    assert len(json.loads(plan["folds"])) == 5


REJECTED = {
    "gbdt": ({"models": [MMOE, {"family": "gbdt"}]}, "models.gbdt", "use mmoe, or set one label"),
    "a network": ({"models": [{"family": "dcn_v2", "name": "mine"}]}, "models.mine", "use mmoe, or set one label"),
    "sampling": ({"training": {"negative_rate": 0.5}}, "training.negative_rate", "give one label"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_rejects_settings_that_need_one_label(tmp_path, capsys, case):
    changes, where, want = REJECTED[case]
    with pytest.raises(TidemillError, match=want) as error:
        plan_training(parse(text(tmp_path, **changes)), str(tmp_path / "root"))
    assert (error.value.code, error.value.where) == (Code.UNSUPPORTED, where)
    assert not (tmp_path / "root").exists()
    (tmp_path / "experiment.yaml").write_text(text(tmp_path, **changes))
    assert main(["validate", str(tmp_path / "experiment.yaml")]) == 2
    assert f"error [unsupported] {where}" in capsys.readouterr().err
    one = parse(text(tmp_path, **changes, labels=["bought"]))
    assert plan_training(one, str(tmp_path / "root"))["members"]


def test_rejects_cross_validation(tmp_path):
    with pytest.raises(TidemillError, match="one label") as error:
        plan_training(parse(text(tmp_path)), str(tmp_path / "root"), cross_validate=True)
    assert (error.value.code, error.value.where) == (Code.UNSUPPORTED, "labels")


def test_does_not_run_the_module_of_a_user_defined_family(tmp_path):
    assert plan_training(parse(text(tmp_path, models=[OWN])), str(tmp_path / "root"))["members"]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"labels": ["bought", "clicked", "bought"]}, "labels names 'bought' twice"),
        ({"labels": ["clicked", "x"]}, "the label 'x' is also a feature"),
        ({"label": "clicked"}, "give label, the column"),
        ({"labels": None}, "give label, the column"),
        ({"labels": []}, "name at least 1"),
        ({"labels": "clicked"}, "write a list"),
    ],
    ids=str,
)
def test_reports_mistakes_in_labels(tmp_path, changes, part):
    with pytest.raises(TidemillError) as error:
        parse(text(tmp_path, **changes))
    assert error.value.code is Code.INVALID_VALUE and part in str(error.value)


def test_validate_prints_the_labels(tmp_path, capsys):
    (tmp_path / "experiment.yaml").write_text(text(tmp_path))
    assert main(["validate", str(tmp_path / "experiment.yaml")]) == 0
    assert "labels clicked, bought, 1 feature, models mmoe" in capsys.readouterr().out
