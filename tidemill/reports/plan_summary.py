"""The summary of a plan: a Markdown text that Kubeflow's UI shows with the planning step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def render(title: str, files: Iterable[tuple[str, int]], specs: Mapping[str, str]) -> str:
    """Returns the summary.

    Args:
        title: What is planned.
        files: Table and size in bytes of each source file.
        specs: URIs of the steps' specs by step, in the order of the pipeline.
    """
    tables: dict[str, tuple[int, int]] = {}
    for table, size in files:
        number, total = tables.get(table, (0, 0))
        tables[table] = number + 1, total + size
    lines = [f"# {title}", "", "| table | files | bytes |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {number} | {size:,} |" for name, (number, size) in tables.items()]
    lines += ["", "| step | spec |", "| --- | --- |"]
    lines += [f"| {step} | `{uri}` |" for step, uri in specs.items()]
    return "\n".join(lines) + "\n"
