"""Families of models, and reading a model back."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tidemill import artifact
from tidemill.errors import Code, TidemillError
from tidemill.experiment.training import Model as Config
from tidemill.models.base import Model
from tidemill.training.input import Layout

DOCUMENT = "model.json"


def family(name: str) -> type[Model]:
    """The class of a family: `MODEL` of the module `tidemill.models.<name>`, which is imported here and not before.

    Raises:
        TidemillError: `unsupported` for a family that this version does not have.
    """
    module = f"{__name__}.{name}"
    if name.isidentifier() and importlib.util.find_spec(module) is not None:
        found = getattr(importlib.import_module(module), "MODEL", None)
        if found is not None:
            return found
    raise TidemillError(
        Code.UNSUPPORTED, "models.family", repr(name), "use a family of this version, or update Tidemill"
    )


def load_model(path: str | os.PathLike) -> Model:
    """Opens a model folder.

    Raises:
        TidemillError: `incomplete-artifact` when it is not whole or not a model; `unsupported` for an unknown family.
    """
    folder = Path(path)
    artifact.open_folder(folder)
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        kind = family(document["family"])
        config = TypeAdapter(Config).validate_python(document["config"])
        layout = Layout.of(document["features"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, ValidationError) as error:
        got = f"a {DOCUMENT} that cannot be read: {error}"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(folder), got, "train the model again") from error
    return kind.load(folder, config, layout)
