"""Exports a model that another framework has trained, by TensorFlow, in a process of its own:

    python -m tidemill.serving.export_process '{"folder": …}'

Its argument is JSON: paths of the model's `folder`, the transform `graph`, the `raw` rows, the `sample` of scored rows
and of the file that an `error` goes to, and the sample's `split`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tidemill.artifacts.examples import Dataset
from tidemill.errors import EXIT_CODE, TidemillError
from tidemill.models import read_model
from tidemill.runtime import die_with_run
from tidemill.serving.checked_export import export_to
from tidemill.serving.replay import Sample, replay
from tidemill.transform.graph import TransformGraph


def main(told: dict[str, str]) -> int:
    """Exports and checks; the exit code."""
    folder, graph = Path(told["folder"]), TransformGraph(told["graph"])
    try:
        model = read_model(folder)
        with np.load(told["sample"]) as arrays:
            sampled = Sample(told["split"], arrays["places"], arrays["scores"], model.layout.labels)
        replay(export_to(folder, model, graph), graph, Dataset(told["raw"]), sampled)
    except TidemillError as error:
        found = {"code": error.code.name, "where": error.where, "got": error.got, "want": error.want}
        Path(told["error"]).write_text(json.dumps(found | {"details": error.details}), encoding="utf-8")
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    die_with_run()
    sys.exit(main(json.loads(sys.argv[1])))
