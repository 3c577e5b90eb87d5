"""Unseen values: rows of other splits whose category does not occur in train, so that a model knows nothing of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidemill.experiment.source import Unseen
from tidemill.validation.charts import percent
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.statistics import SplitStatistics, common

NOTABLE_SHARE = 0.2


@dataclass(frozen=True)
class UnseenShare:
    """The rows of a split with values of one feature that train does not contain.

    Attributes:
        feature: The feature's name.
        split: The split.
        rows: Number of these rows. For lists, the number of values.
        share: Their share of all rows, missing values included. For lists, of all values.
        example: The most frequent of the values.
        threshold: The largest share that the gate allows, if any.
    """

    feature: str
    split: str
    rows: int
    share: float
    example: str
    threshold: float | None

    @property
    def exceeds_threshold(self) -> bool:
        """Whether a threshold applies and the share exceeds it."""
        return self.threshold is not None and self.share > self.threshold

    @property
    def is_notable(self) -> bool:
        """Whether the share exceeds the threshold, or 0.2 if no threshold applies."""
        return self.share > (NOTABLE_SHARE if self.threshold is None else self.threshold)

    def sentence(self) -> str:
        """Returns the share in a sentence."""
        values = f"values that train does not contain, such as {self.example!r}"
        return f"{self.feature}: {percent(self.share)} of the rows of {self.split} have {values}"

    def __str__(self) -> str:
        limit = "" if self.threshold is None else f", above {percent(self.threshold)}"
        return f"{self.feature} in {self.split} ({percent(self.share)} of the rows{limit}, such as {self.example!r})"


def measure(
    splits: Mapping[str, SplitStatistics], columns: Sequence[ExampleColumn], settings: Unseen
) -> list[UnseenShare]:
    """Returns the share of each categorical feature in each split except train, the largest first.

    Args:
        splits: Statistics by split, computed after those of train.
        columns: From `columns.resolve`.
        settings: The thresholds.
    """
    shares: list[UnseenShare] = []
    for name, split in splits.items():
        for column in columns:
            if column.name not in split.unseen:
                continue
            rows, example = split.unseen[column.name]
            stats = common(split.features[column.name])
            total = stats.tot_num_values + stats.num_missing
            limit = settings.columns.get(column.name, settings.max)
            shares.append(UnseenShare(column.name, name, rows, rows / total if total else 0.0, example, limit))
    return sorted(shares, key=lambda u: (-u.share, u.feature, u.split))
