"""The registry of model families: from a config to a model, and from a model folder back to the model.

Importing this module imports no framework.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.artifacts import artifact
from tidemill.artifacts.model import DOCUMENT, ModelDocument
from tidemill.errors import Code, TidemillError
from tidemill.models.core.family import Family, Network
from tidemill.models.core.user_code import user_errors
from tidemill.models.gbdt import Gbdt
from tidemill.models.own import OwnFamily

if TYPE_CHECKING:
    from tidemill.models.core.base import Model
    from tidemill.models.core.inputs import Layout

ENSEMBLE = "ensemble"
_PACKAGE = Path(__file__).parents[1]


@functools.cache
def families() -> dict[str, type[Family]]:
    """Returns the families by name: `FAMILY` of each module in `tidemill.models`."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(_PACKAGE)]) if not module.ispkg)
    return {name: importlib.import_module(f"tidemill.models.{name}").FAMILY for name in names}


def parse_config(config: Mapping[str, Any]) -> Family:
    """Parses the hyperparameters that a model's document holds.

    Raises:
        TidemillError: `unsupported` if this version does not have the family.
        ValidationError: The family does not accept the hyperparameters.
    """
    family = config["family"]
    if family == ENSEMBLE:
        from tidemill.models.core.ensemble_model import EnsembleConfig

        return EnsembleConfig.model_validate(config)
    if family not in families():
        want = "use a family of this version, or update Tidemill"
        raise TidemillError(Code.UNSUPPORTED, "models.family", repr(family), want)
    return families()[family].model_validate(config)


def new_model(config: Family, layout: Layout) -> Model:
    """Creates a model that is not fitted yet. Imports its framework.

    Args:
        config: The member's section of the experiment file.
        layout: The features in the order in which the model takes them, and the labels.

    Raises:
        TidemillError: `invalid-value` for a user-defined family that fails to load, and `unsupported` if it predicts
            one label and the layout has several.
        TypeError: The config is an ensemble's: ensembles are made of fitted models.
    """
    family = config.family_for(layout) if isinstance(config, OwnFamily) else config
    model: Model
    if isinstance(family, Network):
        from tidemill.models.core.neural import NeuralModel

        model = NeuralModel(family, layout)
    elif isinstance(family, Gbdt):
        from tidemill.models.core.booster import GbdtModel

        model = GbdtModel(family, layout)
    else:
        raise TypeError(f"no model is made of {config!r}")
    model.member_config = config
    return model


def load_model(path: str | os.PathLike[str]) -> Model:
    """Opens a model folder.

    Raises:
        TidemillError: `incomplete-artifact` if the folder is incomplete or not a model, `unsupported` if this version
            does not have its family.
    """
    artifact.open_folder(path)
    return read_model(Path(path))


def read_model(folder: Path) -> Model:
    """Reads a model from a folder that need not be sealed yet, but holds the weights and `model.json`.

    Raises:
        TidemillError: As for `load_model`.
    """
    from tidemill.models.core.inputs import Layout

    try:
        document = ModelDocument.read(folder)
        config = parse_config(document.config)
        layout = Layout.of(document.features, document.labels)
    except (FileNotFoundError, KeyError, ValueError) as error:
        got = f"a {DOCUMENT} that cannot be read: {error}"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, str(folder), got, "train the model again") from error
    return read_weights(config, folder, layout)


def read_weights(config: Family, folder: Path, layout: Layout) -> Model:
    """Reads the model with this config that was saved to a folder.

    Raises:
        TidemillError: `incomplete-artifact`, and `invalid-value` for a user-defined family that fails to load.
    """
    family = config.family_of_module() if isinstance(config, OwnFamily) else config
    model: Model
    if isinstance(family, Network):
        from tidemill.models.core.neural import NeuralModel

        with user_errors(family.origin, f"models.{family.name}.module"):
            model = NeuralModel.load(folder, family, layout)
    elif isinstance(family, Gbdt):
        from tidemill.models.core.booster import GbdtModel

        model = GbdtModel.load(folder, family, layout)
    else:
        from tidemill.models.core.ensemble_model import EnsembleConfig, EnsembleModel

        assert isinstance(family, EnsembleConfig), family
        model = EnsembleModel.load(folder, family, layout, _read_member)
    model.member_config = config
    return model


def _read_member(config: Mapping[str, Any], folder: Path, layout: Layout) -> Model:
    return read_weights(parse_config(config), folder, layout)
