"""Generated tables of the READMEs of components and pipelines.

In a README the tables stand between two marker lines. The rest is written by hand and stays unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import docstring_parser
import yaml

BEGIN = "<!-- generated: begin -->"
END = "<!-- generated: end -->"


class _Row(NamedTuple):
    """One input or output."""

    name: str
    kind: str
    default: str
    text: str


def generate(compiled: str | Path, docstring: str) -> str:
    """Returns the tables of one definition's inputs and outputs.

    Args:
        compiled: Path of the compiled YAML.
        docstring: Docstring of the component's or pipeline's function. It describes parameters under `Args`, and the
            outputs that a pipeline returns under `Returns`, each with its name.

    Returns:
        Markdown: an input table and, if there are outputs, an output table.

    Raises:
        ValueError: The docstring omits an input or output, or describes one that does not exist.
    """
    pipeline_spec = next(yaml.safe_load_all(Path(compiled).read_text(encoding="utf-8")))
    interface = _interface(pipeline_spec, Path(compiled).name == "component.yaml")
    # kfp parses `Returns` as if it were `Args`, too.
    texts = (docstring, docstring.replace("Returns:\n", "Args:\n"))
    params = [param for text in texts for param in docstring_parser.parse(text).params]
    described = {param.arg_name: " ".join((param.description or "").split()) for param in params}
    inputs = _rows(interface.get("inputDefinitions", {}), described)
    outputs = _rows(interface.get("outputDefinitions", {}), described, unnamed="Output")
    if unknown := described.keys() - {row.name for row in inputs + outputs}:
        raise ValueError(f"{compiled}: the docstring describes {sorted(unknown)}, which do not exist")
    return "\n\n".join([_table("Input", inputs), *([_table("Output", outputs)] if outputs else [])])


def generate_list(title: str, docstrings: Mapping[str, str]) -> str:
    """Returns the table that lists the definitions of a folder.

    Args:
        title: The folder's name, a plural such as `components`.
        docstrings: The functions' docstrings by definition. The table holds the first sentence of each.

    Returns:
        Markdown with a link to each definition's folder.
    """
    head = "Component" if title == "components" else "Pipeline"
    lines = [f"| {head} | What it does |", "| --- | --- |"]
    for name, docstring in docstrings.items():
        paragraph = " ".join(docstring.strip().partition("\n\n")[0].split())
        lines.append(f"| [{name}]({name}/) | {paragraph.partition('. ')[0].rstrip('.')}. |")
    return "\n".join(lines)


def insert(readme: str, generated: str) -> str:
    """Returns a README's text with the generated part between its markers.

    Raises:
        ValueError: The markers are missing.
    """
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"the README has no lines {BEGIN} and {END}")
    before, rest = readme.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{generated}\n{END}{after}"


def _interface(compiled: dict[str, Any], is_component: bool) -> dict[str, Any]:
    """Returns the inputs and outputs of a compiled component, or those of a compiled pipeline's root."""
    if not is_component:
        return compiled.get("root", {})
    return next(c for c in compiled["components"].values() if "executorLabel" in c)


def _rows(interface: dict[str, Any], described: dict[str, str], unnamed: str | None = None) -> list[_Row]:
    rows = []
    for name, artifact in interface.get("artifacts", {}).items():
        kind = artifact["artifactType"]["schemaTitle"].removeprefix("system.")
        rows.append(_Row(name, f"List[{kind}]" if artifact.get("isArtifactList") else kind, "", _text(name, described)))
    for name, parameter in interface.get("parameters", {}).items():
        kind = parameter["parameterType"].lower().removeprefix("number_")
        default = "" if "defaultValue" not in parameter else f"`{parameter['defaultValue']!r}`"
        text = "The list." if name == unnamed else _text(name, described)
        rows.append(_Row(name, kind, default, text))
    return rows


def _text(name: str, described: dict[str, str]) -> str:
    if not described.get(name):
        raise ValueError(f"the docstring does not describe {name!r}")
    return described[name]


def _table(title: str, rows: list[_Row]) -> str:
    with_default = any(row.default for row in rows)
    head = [title, "Type", "Default", "What it is"] if with_default else [title, "Type", "What it is"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for name, kind, default, text in rows:
        cells = [f"`{name}`", kind, default, text] if with_default else [f"`{name}`", kind, text]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
