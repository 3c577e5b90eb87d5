"""The report of one model: a page that needs nothing else, no script, no font, no network."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jinja2
from markupsafe import Markup

from tidemill.evaluation import plots
from tidemill.evaluation.metrics import METRICS, NAMES
from tidemill.evaluation.plots import Series

MAX_SETTINGS = 60
NEGLIGIBLE = 5e-5
_MAX_SHOWN = 80

_HINTS = {
    "auc": "↑",
    "pr_auc": "↑",
    "log_loss": "↓",
    "normalized_entropy": "↓",
    "calibration": "→ 1",
    "ece": "↓",
    "accuracy": "↑",
}
_HINT_TEXTS = {"↑": "higher is better", "↓": "lower is better", "→ 1": "1 is right"}


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of this package with the filters that they use."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("tidemill.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "number": _number,
        "signed": lambda value, digits=4: _minus(f"{value:+.{digits}f}"),
        "percent": lambda value: f"{value * 100:.1f} %",
        "count": lambda value: f"{value:,}",
        "sentence": lambda text: text[:1].upper() + text[1:],
        "verdict": _verdict,
        "gain": _gain,
    }
    return env


def metric_display(key: str) -> dict:
    """A metric as templates take it: `key`, `name`, `hint` with its text, `digits` after the point."""
    hint = _HINTS[key]
    digits = 3 if key == "calibration" else 4
    return {"key": key, "name": NAMES[key], "hint": hint, "hint_text": _HINT_TEXTS[hint], "digits": digits}


def read_model(folder: str) -> dict:
    """What the report shows of a model folder.

    Returns:
        `model`: the content of `model.json`; `history`: that of `history.json`, None where there is none.
    """
    root, found = Path(folder), {}
    for key in ("model", "history"):
        file = root / f"{key}.json"
        found[key] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found


def render(document: dict, about: dict) -> str:
    """The page.

    Args:
        document: The content of `metrics.json` (see `tidemill.evaluation.evaluate`).
        about: What `read_model` returns.

    Returns:
        HTML.
    """
    main = metric_display(document["objective"]["metric"])
    history = history_lines(about["history"])
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            d=document,
            sections=[_section(label, part, main) for label, part in by_label(document).items()],
            metrics=[metric_display(key) for key in METRICS],
            main=main,
            undefined_plot=Markup('<p class="soft small">The test split lacks one of the classes.</p>'),
            history=history,
            history_plot=_history_plot(history),
            settings=settings(about["model"] or {}),
        )
    )


def by_label(document: dict) -> dict[str, dict]:
    """The parts of `metrics.json` by label; of a single label it is the document itself."""
    return document.get("by_label") or {document["label"]: document}


def _section(label: str, part: dict, main: dict) -> dict:
    """What the page shows of one label."""
    baseline = part["test"]["baseline"]
    compared = baseline is not None and "skipped" not in baseline
    return {
        "label": label,
        "part": part,
        "compared": compared,
        "version": baseline["uri"].rstrip("/").rsplit("/", 1)[-1] if baseline else None,
        "sides": [("model", "this model"), ("baseline", "published")] if compared else [],
        "plots": _plots(part["curves"]),
        "matrix": _matrix(part["confusion"]),
        "slicings": _slicings(part, main, compared),
    }


def _plots(curves: dict) -> dict[str, Markup | None]:
    sides = [(style, curves[style]) for style in ("model", "baseline") if curves[style] is not None]

    def unit(key: str, labels: tuple[str, str], title: str, diagonal: bool) -> Markup | None:
        if not sides[0][1][key]:
            return None
        series = [Series(style, style, drawn(key, each)) for style, each in sides]
        return plots.lines(series, (0, 1), (0, 1), labels, title, diagonal)

    bins = [
        (Series(style, style, [(p["score"], p["share"]) for p in each["calibration"]], dots=True), each["calibration"])
        for style, each in sides
    ]
    return {
        "roc": unit("roc", ("false positive rate", "true positive rate"), "ROC curve", True),
        "precision_recall": unit("precision_recall", ("recall", "precision"), "Precision-recall curve", False),
        "calibration": plots.calibration(bins),
        "histogram": plots.histogram(curves["model"]["histogram"]),
    }


def drawn(key: str, curves: dict) -> list[tuple[float, float]]:
    """The points of a curve that are worth drawing: the precision of the few rows at the top can be anything."""
    start = 0.005 if key == "precision_recall" else 0.0
    return [(p[0], p[1]) for p in curves[key] if p[0] >= start]


def history_lines(history: dict | None) -> dict | None:
    """The course of training: `metric`, `unit`, `kept`, `series`, `legend`. None where there is nothing to draw."""
    entries = (history or {}).get("entries") or []
    metric = next((m for m in ("log_loss", "auc") if any(m in e[s] for e in entries for s in ("train", "valid"))), None)
    if metric is None:
        return None
    series = []
    for split in ("train", "valid"):
        points = [(e["step"], e[split][metric]) for e in entries if e[split].get(metric) is not None]
        if points:
            series.append(Series(split, split, points, dots=len(points) <= 15))
    return {
        "metric": NAMES[metric],
        "unit": history["unit"],
        "kept": history.get("kept"),
        "series": series,
        "legend": [(each.style, each.name) for each in series],
    }


def _history_plot(history: dict | None) -> Markup | None:
    if history is None:
        return None
    points = [p for each in history["series"] for p in each.points]
    values = [v for _, v in points]
    margin = (max(values) - min(values)) * 0.06
    last = max(step for step, _ in points)
    frame = plots.Frame(
        (min(1, last - 1), last), (min(values) - margin, max(values) + margin), history["unit"], history["metric"]
    )
    if history["kept"]:
        frame.guide((history["kept"], frame.y[0]), (history["kept"], frame.y[1]))
    for each in history["series"]:
        frame.line(each)
    return frame.svg("Training")


def _matrix(confusion: list[list[int]]) -> list[list[dict]]:
    result = []
    for row in confusion:
        total = max(sum(row), 1)
        result.append([{"rows": n, "share": n / total, "shade": round(0.05 + 0.5 * n / total, 3)} for n in row])
    return result


def _slicings(document: dict, main: dict, compared: bool) -> list[dict]:
    everything = {**document["test"], "name": "all rows", "all": True}
    result = []
    for slicing in document["slices"]:
        rows = [everything, *slicing["slices"]]
        values = [row["metrics"][main["key"]] for row in rows]
        gains = [row["baseline"]["gain"][main["key"]] for row in rows] if compared else []
        low, high = _extent(values)
        gain_low, gain_high = _extent([*gains, *({"value": v, "low": None, "high": None} for v in (-1e-3, 1e-3))])
        shown = []
        for i, row in enumerate(rows):
            bar = plots.interval_bar(values[i], low, high, values[0]["value"])
            gain_bar = plots.interval_bar(gains[i], gain_low, gain_high, 0.0, _verdict(gains[i])) if compared else None
            shown.append({"all": False, **row, "name": _short_name(row, slicing), "bar": bar, "gain_bar": gain_bar})
        result.append({"title": ", ".join(slicing["columns"]), "rows": shown})
    return result


def _short_name(row: dict, slicing: dict) -> str:
    values = row.get("values")
    return ", ".join(values) if values and len(slicing["columns"]) == len(values) else row["name"]


def _extent(estimates: list[dict]) -> tuple[float, float]:
    """The range of values and interval ends. Intervals wider than 20 times the narrowest one, of very small slices, are
    left out: they would squeeze the others."""
    known = [e for e in estimates if e["value"] is not None]
    widths = [e["high"] - e["low"] for e in known if e["low"] is not None and e["high"] > e["low"]]
    most = 20 * min(widths, default=0.0)
    ends = [e["value"] for e in known]
    ends += [e[k] for e in known if e["low"] is not None and e["high"] - e["low"] <= most for k in ("low", "high")]
    return min(ends, default=0.0), max(ends, default=1.0)


def settings(model: dict) -> list[tuple[str, str]]:
    """What `model.json` says of how the model was made: names and texts, names of nested entries joined by dots."""
    found = []
    if model.get("features"):
        found.append(("features", str(len(model["features"]))))
    if model.get("kept") is not None:
        found.append((f"{model.get('unit', 'epoch')}s kept", str(model["kept"])))
    found += _flat({k: v for k, v in model.get("config", {}).items() if k not in ("name", "family")})
    for section in ("training", "versions"):
        found += _flat(model.get(section, {}), f"{section}.")
    return found[:MAX_SETTINGS]


def _flat(section: dict, prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in section.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append((f"{prefix}{key}", text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"))
    return found


def _number(value: float, digits: int = 4) -> str:
    return _minus(f"{value:.{digits}f}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _verdict(gain: dict) -> str:
    """The class of a gain: `good` or `bad` where its interval is on one side of 0, else `faint`."""
    if gain["value"] is None or gain["low"] is None or abs(gain["value"]) < NEGLIGIBLE:
        return "faint"
    return "good" if gain["low"] > 0 else "bad" if gain["high"] < 0 else "faint"


def _gain(gain: dict, digits: int = 4) -> str:
    word = {"good": "better", "bad": "worse", "faint": "no clear difference"}[_verdict(gain)]
    return _minus(f"{gain['value']:+.{digits}f} {word}")
