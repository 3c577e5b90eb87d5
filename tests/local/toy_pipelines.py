"""Small pipelines of real KFP components, to run the engine with."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List  # noqa: UP035 - kfp reads the annotation by this name

from kfp import dsl

from tidemill.local.definitions import Definition

IMAGE = "tidemill-python-test"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan(experiment: str, root: str, members: dsl.OutputPath(str)):
    """Every model of the experiment is a member."""
    import json
    from pathlib import Path

    from tidemill.experiment import parse
    from tidemill.runtime import step

    with step("plan"):
        names = [model.name for model in parse(experiment).models]
        text = json.dumps([{"name": name, "train": name} for name in names])
        Path(members).write_text(text, encoding="utf-8")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fan_out(items: str) -> list:
    import json

    return json.loads(items)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(rows: int, seconds: float, root: str, examples: dsl.Output[dsl.Dataset], report: dsl.Output[dsl.HTML]):
    """Writes as many rows, in as many seconds."""
    import time
    from pathlib import Path

    from tidemill.artifacts.artifact import write_folder
    from tidemill.errors import Code, TidemillError
    from tidemill.runtime import step

    with step("ingest") as progress:
        Path(report.path).write_text("<p>rows</p>", encoding="utf-8")
        if rows == 13:
            raise ValueError("a defect, not a mistake")
        if rows < 0:
            raise TidemillError(Code.EMPTY_INPUT, "source.sql", f"{rows} rows", "ask for more rows")
        with write_folder(examples.path) as folder:
            print("writing python3 rows to", examples.path)
            for row in range(rows):
                progress.rows(row, rows, "write")
                time.sleep(seconds / rows)
            (folder / "rows.txt").write_text("x" * rows, encoding="utf-8")
    examples.metadata["rows"] = rows


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(spec: str, seconds: float, examples: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]):
    """Fails for the member `bad`; is killed as `greedy`."""
    import os
    import signal
    import time

    from tidemill.artifacts.artifact import open_folder, write_folder
    from tidemill.errors import Code, TidemillError
    from tidemill.runtime import step

    with step("train") as progress:
        open_folder(examples.path)
        if spec == "bad":
            raise TidemillError(Code.TRAINING_DIVERGED, "loss", "nan", "lower the learning rate")
        if spec == "greedy":
            os.kill(os.getpid(), signal.SIGKILL)
        progress.phase("fit")
        time.sleep(seconds)
        with write_folder(model.path) as folder:
            (folder / "model.txt").write_text(spec, encoding="utf-8")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(model: dsl.Input[dsl.Model], evaluation: dsl.Output[dsl.Artifact], report: dsl.Output[dsl.HTML]):
    """As many tenths of AUC as the member's name has letters."""
    import json
    from pathlib import Path

    from tidemill.artifacts.artifact import write_folder
    from tidemill.runtime import step

    with step("evaluate"):
        name = (Path(model.path) / "model.txt").read_text(encoding="utf-8")
        blessed = len(name) > 1
        facts = {"name": name, "family": "toy", "model_fingerprint": "", "objective": "auc", "objective_value": 0.7}
        facts |= {"blessed": blessed, "reasons": [] if blessed else ["auc 0.1 < 0.2"]}
        with write_folder(evaluation.path, facts) as folder:
            metrics = {"auc": {"value": len(name) / 10}, "log_loss": {"value": None}}
            (folder / "metrics.json").write_text(json.dumps({"test": {"metrics": metrics}}), encoding="utf-8")
        Path(report.path).write_text(f"<p>{name}</p>", encoding="utf-8")
    evaluation.metadata["kind"] = "evaluation"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def publish(models: dsl.Input[List[dsl.Model]], root: str, uri: dsl.OutputPath(str)):  # noqa: UP006
    import json
    from pathlib import Path

    from tidemill.artifacts.artifact import seal
    from tidemill.runtime import step

    with step("publish"):
        target = Path(root) / "models" / "toy"
        target.mkdir(parents=True, exist_ok=True)
        (target / "names.txt").write_text(" ".join(model.name for model in models), encoding="utf-8")
        (target / "tidemill").mkdir(exist_ok=True)
        (target / "tidemill" / "lineage.json").write_text(json.dumps({"model": {"name": "aa"}}), encoding="utf-8")
        seal(target)
    Path(uri).write_text(str(target), encoding="utf-8")


@dsl.pipeline(name="toy")
def toy(experiment: str, root: str, rows: int = 3, seconds: float = 0.0):
    planned = plan(experiment=experiment, root=root)
    planned.set_caching_options(False)
    data = ingest(rows=rows, seconds=seconds, root=root).after(planned)
    members = fan_out(items=planned.outputs["members"])
    members.set_caching_options(False)
    with dsl.ParallelFor(members.output) as member:
        trained = train(spec=member.train, seconds=seconds, examples=data.outputs["examples"])
        evaluate(model=trained.outputs["model"])
    publish(models=dsl.Collected(trained.outputs["model"]), root=root)


@dsl.pipeline(name="single")
def single(rows: int, seconds: float, root: str):
    ingest(rows=rows, seconds=seconds, root=root)


@dataclass(frozen=True)
class Toy(Definition):
    """A pipeline that is passed as a function instead of being looked up by name."""

    definition: Any = None

    def _definition(self):
        return self.definition


TOY = Toy("pipeline", "toy", Path("."), "tests", toy)
SINGLE = Toy("pipeline", "single", Path("."), "tests", single)


def experiment(*members: str) -> str:
    """An experiment with models of these names."""
    models = [{"family": "gbdt", "name": name} for name in members]
    features = {"x": {"kind": "numeric"}}
    return json.dumps(
        {
            "name": "toy",
            "source": {"tables": {"t": "pkg://tidemill/errors.py"}},
            "label": "y",
            "features": features,
            "models": models,
        }
    )
