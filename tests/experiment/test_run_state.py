"""The size of a run's state in Argo, against sizes that KFP 2.17's and Argo 4.0.5's own code made."""

import pytest
import yaml

from tidemill.cli.main import main
from tidemill.experiment import Experiment, parse
from tidemill.experiment.run_state import ARGO_BYTES, cross_validate_bytes, too_large, train_bytes


def experiment(members: int, folds: int | None = None) -> Experiment:
    return parse(text(members, folds))


def text(members: int, folds: int | None = None) -> str:
    models = [{"family": "gbdt", "name": f"m{number}"} for number in range(members)]
    training = {} if folds is None else {"training": {"folds": folds}}
    source = {"tables": {"t": "gs://bucket/t.csv"}}
    features = {"x": {"kind": "numeric"}}
    return yaml.safe_dump(
        {"name": "n", "source": source, "label": "y", "features": features, "models": models} | training
    )


@pytest.mark.parametrize(
    ("members", "folds", "measured"),
    [(1, 50, 719_698), (2, 25, 774_451), (5, 11, 910_755), (9, 5, 914_246), (9, 6, 1_007_621), (9, 7, 1_084_911)],
)
def test_is_near_the_size_of_cross_validations(members, folds, measured):
    assert cross_validate_bytes(experiment(members, folds), folds) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(("members", "measured"), [(20, 585_941), (40, 957_713)])
def test_is_near_the_size_of_trainings(members, measured):
    assert train_bytes(experiment(members)) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(
    ("members", "folds", "named"),
    [
        (9, None, ()),
        (9, 5, ()),
        (9, 7, ("63 trainings",)),
        (45, None, ()),
        (46, None, ("46 models",)),
        (46, 2, ("46", "92")),
    ],
)
def test_names_the_pipelines_that_are_too_large(members, folds, named):
    problem = too_large(experiment(members, folds))
    assert (problem is None) == (not named)
    assert all(part in (problem or "") for part in (*named, f"{ARGO_BYTES:,}" if named else ""))


def test_validate_warns(tmp_path, capsys):
    for folds, expected in (
        (5, ""),
        (7, "warning  on a cluster, cross_validate with 63 trainings of folds would take about "),
    ):
        (tmp_path / "e.yaml").write_text(text(9, folds))
        assert main(["validate", str(tmp_path / "e.yaml")]) == 0
        err = capsys.readouterr().err
        assert err.startswith(expected) and err.count("\n") == bool(expected)
