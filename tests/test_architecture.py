"""The direction of imports: docs/architecture.md shows the same layers."""

import ast
import re
from pathlib import Path

import grimp
import pytest

import tidemill

LAYERS = [
    "__main__",
    "cli",
    "api",
    "local",
    "planning",
    "ensembling publishing",
    "evaluation training",
    "serving validation",
    "data reports transform",
    "steps",
    "experiment",
    "models",
    "artifacts duckdb_session",
    "runtime",
    "failure_record",
    "bundled_modules frames given_schema section storage",
    "auc_and_log_loss cpus distributions errors fingerprint metric_definitions",
    "error_codes version",
]
"""From the top down. A module imports only from lower layers and from its own package; what stands on one line is
independent of each other."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports below `tidemill`, also those inside functions and those that only type checkers see."""
    return grimp.build_graph("tidemill", cache_dir=None)


def test_imports_run_from_higher_layers_to_lower_ones(graph):
    layers = [grimp.Layer(*(f"tidemill.{name}" for name in line.split()), independent=True) for line in LAYERS]
    illegal = graph.find_illegal_dependencies_for_layers(tuple(layers))
    wrong = {f"{first} -> {second}" for d in illegal for r in d.routes for first in r.heads for second in r.tails}
    assert not wrong, "\n".join(sorted(wrong))


def test_every_package_has_a_layer(graph):
    named = {name for line in LAYERS for name in line.split()}
    assert {module.split(".")[1] for module in graph.modules if "." in module} == named


def test_no_module_imports_itself_through_others(graph):
    circles = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if chain := graph.find_shortest_chain(importer=imported, imported=module):
                circles.add(" -> ".join([module, *chain]))
    assert not circles, "\n".join(sorted(circles))


def test_components_import_only_kfp_and_the_standard_library_at_the_top():
    import tidemill.components

    for path in Path(tidemill.components.__path__[0]).glob("*/component.py"):
        names = [name for node in ast.parse(path.read_text("utf-8")).body for name in _imported(node)]
        assert {name.split(".")[0] for name in names} <= {"typing", "kfp", "tidemill"}, path
        assert {name for name in names if name.startswith("tidemill")} <= {"tidemill.components"}, path


def test_the_library_does_not_import_components_or_pipelines(graph):
    for path in Path(tidemill.__file__).parent.rglob("*.py"):
        names = [name for node in ast.walk(ast.parse(path.read_text("utf-8"))) for name in _imported(node)]
        assert not [n for n in names if n.startswith(("tidemill.components", "tidemill.pipelines"))], path


def test_no_two_types_and_no_two_files_have_one_name():
    types, files = {}, {}
    for path in Path(tidemill.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for name in [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)] + _type_aliases(tree):
            types.setdefault(name, []).append(str(path))
        # A step's spec and its work are in files of one name: tidemill/steps/train.py and tidemill/training/train.py.
        if path.name != "__init__.py" and path.parent.name != "steps":
            files.setdefault(path.name, []).append(str(path))
    twice = {name: paths for names in (types, files) for name, paths in names.items() if len(paths) > 1}
    assert not twice


def _type_aliases(tree: ast.Module) -> list[str]:
    """Returns the public names in CamelCase that a module assigns. Leaves out type variables, which are calls."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call)]
    names = [target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name)]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module]
    return []
