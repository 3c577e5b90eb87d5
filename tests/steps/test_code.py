"""The code part of the cache keys: which files and libraries each step's key holds."""

from __future__ import annotations

import ast
import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tidemill
from tidemill.steps import step_codes
from tidemill.steps.core.import_graph import ImportGraph, imported_names, installed

SOURCES = Path(tidemill.__file__).parent
COMPONENTS = SOURCES.parent / "components"
STEPS = sorted(step_codes())
NOT_DECIDING = {"fsspec", "google", "google_crc32c", "jinja2", "kfp", "markupsafe", "pydantic", "tensorboard", "yaml"}
"""Packages that steps import and whose versions do not decide a result."""
BY_SETTINGS = {"apache_beam", "jax", "keras", "lightgbm"}
"""Packages that decide the result only with some settings. Planners add them."""


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> dict[str, Path]:
    """A copy of the sources."""
    root = tmp_path_factory.mktemp("sources")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCES, root / "tidemill", ignore=ignored)
    shutil.copytree(COMPONENTS, root / "components", ignore=ignored)
    return {"tidemill": root / "tidemill", "tidemill.components": root / "components"}


@pytest.mark.process
def test_keys_are_the_same_where_a_folder_has_the_name_of_the_package(tmp_path):
    # A clone is such a folder, and Python takes it for the package if it is started beside it.
    (tmp_path / "tidemill").symlink_to(SOURCES.parent)
    program = "from tidemill.steps import step_codes; print(step_codes()['ingest'].fingerprint())"
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == step_codes()["ingest"].fingerprint()


def keys(folders: dict[str, Path]) -> dict[str, dict[str, str]]:
    graph = ImportGraph(folders)
    return {step: graph.files(code.entry) for step, code in step_codes().items()}


def test_a_copy_elsewhere_has_the_same_keys(copied):
    assert keys(copied) == {step: code.files() for step, code in step_codes().items()}


CHANGES = {
    "cli/main.py": set(),
    "local/pipeline_runner.py": set(),
    "planning.py": set(),
    "__init__.py": set(STEPS),
    "errors.py": set(STEPS),
    "data/ingest.py": {"ingest"},
    "models/dcn_v2.py": {"train", "ensemble", "evaluate"},
    "models/core/registry.py": {"train", "ensemble", "evaluate"},
    "training/loop.py": {"train"},
    "ensembling/pack.py": {"ensemble", "pack_models"},
    "failure_record.py": set(STEPS),
    "publishing/publish.py": {"publish"},
    "steps/validate.py": {"validate"},
}


@pytest.mark.parametrize("path", CHANGES)
def test_a_changed_line_changes_only_the_keys_that_reach_it(copied, path):
    before = keys(copied)
    file = copied["tidemill"] / path
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(text + "\n# changed\n", encoding="utf-8")
        after = keys(copied)
    finally:
        file.write_text(text, encoding="utf-8")
    changed = {step for step in STEPS if before[step] != after[step]}
    assert changed == CHANGES[path]
    for step in changed:
        assert {label for label in after[step] if after[step][label] != before[step].get(label)} == {f"tidemill/{path}"}


def test_a_changed_component_changes_only_its_own_key(copied):
    before = keys(copied)
    file = copied["tidemill.components"] / "evaluate" / "component.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert {step for step, files in keys(copied).items() if files != before[step]} == {"evaluate"}


def test_a_changed_report_template_changes_the_keys_of_the_steps_that_render_it(copied):
    before = keys(copied)
    for name, step in {"evaluation": "evaluate", "leaderboard": "publish", "experiment": "ensemble"}.items():
        (template,) = copied["tidemill"].rglob(f"{name}.html.jinja")
        template.write_text(template.read_text(encoding="utf-8") + " ", encoding="utf-8")
        after = keys(copied)
        changed = {step for step in STEPS if after[step] != before[step]}
        assert step in changed and changed <= {"evaluate", "ensemble", "publish"}
        before = after


def test_a_template_counts_with_those_that_it_extends(tmp_path):
    package = tmp_path / "tidemill"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "page.py").write_text('TEMPLATE = "page.html.jinja"\n')
    (package / "page.html.jinja").write_text('{% extends "base.html.jinja" %}')
    (package / "base.html.jinja").write_text("base")
    files = ImportGraph({"tidemill": package}).files("tidemill.page")
    assert list(files) == [
        f"tidemill/{name}" for name in ("__init__.py", "base.html.jinja", "page.html.jinja", "page.py")
    ]


def test_imports_inside_functions_count_and_those_for_types_do_not(tmp_path):
    package = tmp_path / "tidemill"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__", "a", "b", "c", "d", "e", "inner/__init__", "inner/f", "inner/g"):
        (package / f"{name}.py").touch()
    (package / "a.py").write_text(
        '"""A module.\n\nfrom nothing that is a statement\n"""\n'
        "from typing import TYPE_CHECKING\n\n"
        "if TYPE_CHECKING:\n    from tidemill import c\n\n    import tidemill.inner.g\n\n"
        "NAMES = {'d': 'tidemill.d'}\n\n\n"
        "def run():\n    from tidemill.b import (\n        x,\n    )\n    from tidemill.inner.f import y as z\n"
    )
    (package / "inner/__init__.py").write_text("from tidemill.e import name\n")
    files = ImportGraph({"tidemill": package}).files("tidemill.a")
    names = ["__init__.py", "a.py", "b.py", "d.py", "inner/__init__.py", "inner/f.py"]
    assert list(files) == [f"tidemill/{name}" for name in names]


def test_import_statements_are_found_as_python_finds_them():
    for path in [*SOURCES.rglob("*.py"), *COMPONENTS.rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert imported_names(text) == {*_imports(ast.parse(text))}, path


def _imports(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _imports(node)


def test_modules_that_are_imported_by_name_are_reached():
    computed = {
        (path.relative_to(SOURCES).as_posix(), ast.unparse(node.args[0]))
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("import_module")
        and not isinstance(node.args[0], ast.Constant)
    }
    # The command line, the local runner and the discovery of the steps belong to no step's code.
    outside = ("cli/", "local/", "steps/__init__.py", "api/", "__init__.py")
    by_steps = {(path, name) for path, name in computed if not path.startswith(outside)}
    assert by_steps == {("models/core/registry.py", "f'tidemill.models.{name}'")}, "teach import_graph the new form"
    families = {path.name for path in (SOURCES / "models").glob("*.py")}
    assert {f"tidemill/models/{name}" for name in families} <= set(step_codes()["train"].files())


@pytest.mark.parametrize("step", STEPS)
def test_the_libraries_that_a_step_reaches_are_in_its_key(step):
    code = step_codes()[step]
    imported = installed().libraries(code.entry) - sys.stdlib_module_names - NOT_DECIDING - BY_SETTINGS
    if step == "publish":  # It copies files and draws a page.
        imported -= {"numpy"}
    distributions = importlib.metadata.packages_distributions()
    for package in imported:
        assert set(distributions[package]) & set(code.libraries), package
    assert set(code.versions()) == set(code.libraries)


def test_libraries_that_are_not_installed_are_left_out():
    assert "no-such-library" not in step_codes()["ingest"].versions("no-such-library")
