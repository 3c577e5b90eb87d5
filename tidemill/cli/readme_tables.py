"""The generated part of the READMEs of components and pipelines: tables of inputs and outputs, from the compiled YAML.

In a README the tables stand between two marker lines; the rest is written by hand and left alone.
"""

from __future__ import annotations

from pathlib import Path

import docstring_parser
import yaml

BEGIN = "<!-- generated: begin -->"
END = "<!-- generated: end -->"


def generate(compiled: str | Path, docstring: str) -> str:
    """The generated part of one README.

    Args:
        compiled: Path of the compiled YAML.
        docstring: Docstring of the component's or pipeline's function; it describes inputs and outputs under `Args`.

    Returns:
        Markdown: an input table and, where there are outputs, an output table.

    Raises:
        ValueError: an input or output is not described, or something is described that does not exist.
    """
    spec = next(yaml.safe_load_all(Path(compiled).read_text(encoding="utf-8")))
    definition = _definition(spec, Path(compiled).name == "component.yaml")
    described = {p.arg_name: " ".join((p.description or "").split()) for p in docstring_parser.parse(docstring).params}
    inputs = _rows(definition.get("inputDefinitions", {}), described)
    outputs = _rows(definition.get("outputDefinitions", {}), described, unnamed="Output")
    if unknown := described.keys() - {name for name, *_ in inputs + outputs}:
        raise ValueError(f"{compiled}: the docstring describes {sorted(unknown)}, which do not exist")
    parts = [_table("Input", inputs)]
    if outputs:
        parts.append(_table("Output", outputs))
    return "\n\n".join(parts)


def insert(readme: str, generated: str) -> str:
    """Puts the generated part between the markers of a README's text.

    Raises:
        ValueError: the markers are missing.
    """
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"the README has no lines {BEGIN} and {END}")
    before, rest = readme.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{generated}\n{END}{after}"


def _definition(spec: dict, is_component: bool) -> dict:
    """A component's own definition; a pipeline's is that of its root."""
    if not is_component:
        return spec.get("root", {})
    return next(c for c in spec["components"].values() if "executorLabel" in c)


def _rows(definitions: dict, described: dict[str, str], unnamed: str | None = None) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, artifact in definitions.get("artifacts", {}).items():
        kind = artifact["artifactType"]["schemaTitle"].removeprefix("system.")
        rows.append((name, f"List[{kind}]" if artifact.get("isArtifactList") else kind, "", _text(name, described)))
    for name, parameter in definitions.get("parameters", {}).items():
        kind = parameter["parameterType"].lower().removeprefix("number_")
        default = "" if "defaultValue" not in parameter else f"`{parameter['defaultValue']!r}`"
        text = "The list." if name == unnamed else _text(name, described)
        rows.append((name, kind, default, text))
    return rows


def _text(name: str, described: dict[str, str]) -> str:
    if not described.get(name):
        raise ValueError(f"the docstring does not describe {name!r}")
    return described[name]


def _table(title: str, rows: list[tuple[str, str, str, str]]) -> str:
    with_default = any(row[2] for row in rows)
    head = [title, "Type", "Default", "What it is"] if with_default else [title, "Type", "What it is"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for name, kind, default, text in rows:
        cells = [f"`{name}`", kind, default, text] if with_default else [f"`{name}`", kind, text]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
