"""The metrics of a run's models, as text: which metric and split decided, and what each model reached."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidemill.local.run_outputs import MemberResult
from tidemill.metric_definitions import goodness

_METRIC_COLUMNS = ("auc", "pr_auc", "log_loss", "calibration", "accuracy")


def metrics_table(members: Sequence[MemberResult]) -> str:
    """Returns a table with one line per model, the best first, and below it the failed gates and the warnings.

    The columns are the objective on the valid split, which decides, and the metrics of the test split.
    """
    columns = [name for name in _METRIC_COLUMNS if any(member.metrics.get(name) is not None for member in members)]
    objective = members[0].objective
    rows = [["model", f"valid {objective}", *columns, "gates"]]
    for member in ranked(members):
        values = [member.objective_value, *(member.metrics.get(name) for name in columns)]
        verdict = "passed" if member.blessed else "failed"
        rows.append([member.name, *("" if value is None else f"{value:.4f}" for value in values), verdict])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [f"valid {objective} decides; the other metrics are those of the test split"]
    lines += ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in rows]
    lines += [f"{member.name}: {reason}" for member in members if not member.blessed for reason in member.gate_texts]
    lines += [f"{member.name}: {warning}" for member in members for warning in member.warnings]
    return "\n".join(lines)


def decision(members: Sequence[MemberResult]) -> str:
    """Returns a sentence about which metric and split decided between the models."""
    blessed = [member for member in ranked(members) if member.blessed]
    if not blessed:
        return "no model passed its gates on the test split, so none can be published"
    best, objective = blessed[0], members[0].objective
    if best.objective_value is None:
        return f"{best.name} passed its gates on the test split; {objective} on the valid split has no value"
    others = "the only model that" if len(blessed) == 1 else f"the best of {len(blessed)} models that"
    return (
        f"{best.name} by {objective} on the valid split, {best.objective_value:.4f}, {others} passed on the test split"
    )


def ranked(members: Sequence[MemberResult]) -> list[MemberResult]:
    """Returns the models, that with the best objective first."""

    def rank(member: MemberResult) -> float:
        value = member.objective_value
        return -math.inf if value is None else float(goodness(member.objective, value))

    return sorted(members, key=rank, reverse=True)
