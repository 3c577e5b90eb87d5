"""An experiment file for the tests of commands."""

from pathlib import Path


def write(folder: Path, *members: str, table: str = "pkg://tidemill/errors.py") -> str:
    """Writes an experiment with these members and one table, and returns its path."""
    models = ", ".join(f"{{family: gbdt, name: {name}}}" for name in members)
    file = folder / "toy.yaml"
    data = f"name: toy\nsource: {{tables: {{t: '{table}'}}}}\nlabel: y\nfeatures: {{x: {{kind: numeric}}}}\n"
    file.write_text(f"{data}models: [{models}]\n")
    return str(file)
