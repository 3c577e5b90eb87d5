"""Families of models: one module each, found by being here."""

from __future__ import annotations

import functools
import importlib
import json
import os
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tidemill.artifacts import artifact
from tidemill.errors import Code, TidemillError

if TYPE_CHECKING:
    from tidemill.models.core.base import Model
    from tidemill.models.core.family import Family

DOCUMENT = "model.json"


@functools.cache
def families() -> dict[str, type[Family]]:
    """The families by name: `FAMILY` of each module of this package. Imports no framework."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return {name: importlib.import_module(f"{__name__}.{name}").FAMILY for name in names}


def config_of(document: dict) -> Family:
    """A family's hyperparameters, as a model's document holds them.

    Raises:
        TidemillError: `unsupported` for a family that this version does not have.
        ValidationError: the hyperparameters are not the family's.
    """
    if document["family"] == "ensemble":
        from tidemill.models.core.ensemble import EnsembleConfig

        return EnsembleConfig.model_validate(document)
    if document["family"] not in families():
        want = "use a family of this version, or update Tidemill"
        raise TidemillError(Code.UNSUPPORTED, "models.family", repr(document["family"]), want)
    return families()[document["family"]].model_validate(document)


def load_model(path: str | os.PathLike) -> Model:
    """Opens a model folder.

    Raises:
        TidemillError: `incomplete-artifact` when it is not whole or not a model; `unsupported` for a family that this
            version does not have.
    """
    artifact.open_folder(path)
    return read_model(Path(path))


def read_model(folder: Path) -> Model:
    """As `load_model`, of a folder that may still be written to: its model and `model.json` are there."""
    from tidemill.models.core.inputs import Layout

    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        config = config_of(document["config"])
        layout = Layout.of(document["features"], document["labels"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, ValidationError) as error:
        got = f"a {DOCUMENT} that cannot be read: {error}"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(folder), got, "train the model again") from error
    return config.load(folder, layout)
