"""The `predict` step: scores rows with a published model."""

from __future__ import annotations

from tidemill.section import Column, Section


class PredictSpec(Section):
    """The settings of one `predict` step."""

    code: str
    experiment: str
    model: str
    """URI of the published version, `…/<name>/<version>`."""
    key: list[Column]
    columns: list[Column]
    """Raw columns to copy into the predictions, besides the key."""
    shards: int
    batch_size: int
    output: str
    """URI of the folder to write."""
