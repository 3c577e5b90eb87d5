"""Generated tables of the READMEs: inputs and outputs of components and pipelines, from the compiled YAML.

The tables are between two marker lines. The rest of a README is written by hand and stays as it is.
"""

from __future__ import annotations

from pathlib import Path

import docstring_parser
import yaml

BEGIN = "<!-- generated: begin -->"
END = "<!-- generated: end -->"


def generate(compiled: str | Path, docstring: str) -> str:
    """Returns the generated part of one README.

    Args:
        compiled: Path of the compiled YAML.
        docstring: Docstring of the component's or pipeline's function; it describes inputs and outputs under `Args`.

    Returns:
        Markdown: a table of inputs and, if there are outputs, a table of outputs.

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
    """Returns a README with the generated part between its markers.

    Raises:
        ValueError: the markers are missing.
    """
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"the README has no lines {BEGIN} and {END}")
    before, rest = readme.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{generated}\n{END}{after}"


def _definition(spec: dict, is_component: bool) -> dict:
    """Returns the definition of the component, or of the pipeline's root."""
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
