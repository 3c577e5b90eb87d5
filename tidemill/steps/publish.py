"""The `publish` step: copies the best blessed model to the model store."""

from __future__ import annotations

from typing import Any

from tidemill.section import Section


class PublishSpec(Section):
    """The settings of one `publish` step."""

    code: str
    experiment: str
    run_fingerprint: str
    """Fingerprint of everything that decides the result: sources, specs and code."""
    objective: str
    lineage: dict[str, Any]
    """The experiment, the source record's fingerprint, the code versions and the baseline."""
