"""The settings that a model was made with, for its page: its own ones, not those of other families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidemill.experiment.training import OF_NETWORKS
from tidemill.models import Network, families

MAX_SETTINGS = 60
_MAX_TEXT = 80


def settings(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns how a model was made, as names and texts.

    Args:
        model: The content of `model.json`. Names of nested entries are joined by dots.
    """
    entries = []
    if model.get("features"):
        entries.append(("features", str(len(model["features"]))))
    if model.get("kept") is not None:
        entries.append((f"{model.get('unit', 'epoch')}s kept", str(model["kept"])))
    unused = _unused(model)
    for key, prefix in (("config", ""), ("training", "training."), ("versions", "versions.")):
        flat = _flatten(model.get(key) or {}, prefix)
        entries += [(name, text) for name, text in flat if not any(_is_part(name, each) for each in unused)]
    return entries[:MAX_SETTINGS]


def _unused(model: Mapping[str, Any]) -> set[str]:
    """Returns the names of settings and sections that the model's family does not read."""
    unused = {"name", "family"}
    if model.get("unit") == "round":
        unused |= {f"training.{name}" for name in OF_NETWORKS} | {"training.early_stopping.patience"}
    else:
        unused.add("training.early_stopping.rounds")
    if model.get("training", {}).get("backend") == "jax":
        unused.add("training.xla")
    family = families().get(model.get("config", {}).get("family", ""))
    if family is not None and issubclass(family, Network) and not family.embeds:
        unused |= {"embedding_dim", "embedding_dims"}
    return unused


def _is_part(name: str, section: str) -> bool:
    return name == section or name.startswith(f"{section}.")


def _flatten(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    entries = []
    for key, value in section.items():
        if isinstance(value, dict):
            entries += _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            entries.append((f"{prefix}{key}", text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"))
    return entries
