"""The `pack_models` step: copies a list of models into one artifact."""

from __future__ import annotations

from typing import Literal

from tidemill.steps.core.spec import StepCode, StepSpec

CODE = StepCode("pack_models")


class PackModelsSpec(StepSpec):
    """The settings of the `pack_models` step: none but its code."""

    step: Literal["pack_models"] = "pack_models"


def plan() -> PackModelsSpec:
    """Plans the step."""
    return PackModelsSpec(code=CODE.fingerprint(), libraries=CODE.versions())
