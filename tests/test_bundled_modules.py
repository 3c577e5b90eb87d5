"""A user's module together with the modules that it imports from its folder."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.bundled_modules import bundle, execute, line_of, top_level_imports, unbundle
from tidemill.cli.main import main
from tidemill.errors import Code, TidemillError
from tidemill.experiment import load, parse
from tidemill.planning import plan_training
from tidemill.transform import module_function

FILES = ["a.py", "b.py", "pkg/__init__.py", "pkg/c.py", "pkg/deep/d.py", "plain/e.py"]
"""In this order: a file imports only later ones, and `main.py` any of them."""
NAMES = [file.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".") for file in FILES]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "main.py"


def run_bundled(path: Path) -> dict:
    namespace = {"__name__": "main"}
    execute(bundle(path, "transform_module"), "main.py", namespace)
    return namespace


def run_as_script(path: Path) -> tuple[dict, set[str]]:
    """Returns the namespace of a module that Python itself runs, and the files that it imported."""
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        namespace = runpy.run_path(str(path))
        new = {name: sys.modules.pop(name) for name in set(sys.modules) - before}
    finally:
        sys.path.remove(str(path.parent))
    paths = [Path(file) for m in new.values() if (file := getattr(m, "__file__", None))]
    return namespace, {p.relative_to(path.parent).as_posix() for p in paths if path.parent in p.parents}


@st.composite
def projects(draw: st.DrawFn) -> dict[str, str]:
    files = {}
    for index, file in enumerate(["main.py", *FILES]):
        lines = ["import math", f"VALUE = {index}"]
        for name in (
            draw(st.lists(st.sampled_from(NAMES[index:]), max_size=3, unique=True)) if index < len(FILES) else []
        ):
            head, _, last = name.rpartition(".")
            styles = [f"import {name}\nVALUE += 10 * {name}.VALUE", f"from {name} import VALUE as v\nVALUE += v"]
            styles += [f"def f():\n    import {name} as m\n    return m.VALUE\nVALUE += f()"]
            styles += [f"from {head} import {last}\nVALUE += {last}.VALUE"] if head else []
            styles += [f"from .deep import {last}\nVALUE += {last}.VALUE"] if (file, last) == ("pkg/c.py", "d") else []
            lines.append(draw(st.sampled_from(styles)))
        files[file] = "\n".join(lines) + "\n"
    return files


@given(projects())
def test_a_bundle_does_what_python_does_and_has_the_files_that_it_reads(tmp_path_factory, files):
    path = write(tmp_path_factory.mktemp("project"), files)
    expected, read = run_as_script(path)
    assert run_bundled(path)["VALUE"] == expected["VALUE"]
    text = bundle(path, "transform_module")
    assert set(unbundle(text)) == read
    for name in read:
        (path.parent / name).write_text(files[name] + "# changed\n")
        assert bundle(path, "transform_module") != text


def test_a_module_without_imports_from_its_folder_is_not_changed(tmp_path):
    text = "import math\nimport tidemill\n#! from x.py\nx = '''\n#| y\n'''"
    path = write(tmp_path, {"main.py": text, "math.py": "wrong", "tidemill.py": "wrong", "other.py": "unused"})
    assert bundle(path, "m") == text and unbundle(text) == {}


def test_two_bundles_with_a_module_of_the_same_name_keep_their_own(tmp_path):
    paths = [write(tmp_path / name, {"main.py": "import a\nx = a.x", "a.py": f"x = '{name}'"}) for name in "pq"]
    assert [run_bundled(path)["x"] for path in paths] == ["p", "q"] and "a" not in sys.modules


@pytest.mark.parametrize("content", ["x = (", b"x = '\xff'"])
def test_rejects_an_imported_file_that_is_not_python(tmp_path, content):
    path = write(tmp_path, {"main.py": "import a"})
    (tmp_path / "a.py").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TidemillError) as error:
        bundle(path, "transform_module")
    assert error.value.code in (Code.INVALID_VALUE, Code.UNREADABLE_FILE) and "a.py" in str(error.value)


def test_names_the_line_of_an_imported_file(tmp_path):
    files = {
        "main.py": "from a import f\ndef preprocessing_fn(inputs):\n    return f()\n",
        "a.py": "def f():\n    return oops\n",
    }
    text = bundle(write(tmp_path, files), "transform_module")
    with pytest.raises(TidemillError) as error, module_function.user_errors(text, lambda: None):
        module_function.load(text)({})
    assert str(error.value).startswith(
        "transform_module, line 3: got NameError: name 'oops' is not defined (a.py, line 2)"
    )
    assert line_of(ValueError(), "main.py") == ""


def test_lists_what_a_module_imports_when_it_is_executed(tmp_path):
    main = """import tfx.v1
from helpers import f
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import pandas
try:
    import tfx_bsl
except ImportError:
    tfx_bsl = None
def run_fn():
    import keras_tuner
"""
    text = bundle(write(tmp_path, {"main.py": main, "helpers.py": "import ml_metadata\ndef f(): ...\n"}), "m")
    assert top_level_imports(text) == {"tfx.v1": "line 1", "typing": "line 3", "ml_metadata": "helpers.py, line 1"}


OWN = """from typing import Literal
from layers import width
from tidemill.models import Network
class Small(Network):
    family: Literal["small"]
    width: int = width()
    def logit(self, features): ...
FAMILY = Small
"""
FEATURES = """import helpers
def preprocessing_fn(inputs):
    return helpers.clean(inputs)
def run_fn(fn_args):
    import keras_tuner
"""


@pytest.fixture
def experiment(tmp_path) -> Path:
    """An experiment with a transform module and a family that import from their folders."""
    write(
        tmp_path, {"d.csv": "x,y\n1,0\n2,1\n", "features.py": FEATURES, "helpers.py": "def clean(x):\n    return x\n"}
    )
    write(tmp_path, {"own/family.py": OWN, "own/layers.py": "def width():\n    return 4\n"})
    models = [{"family": "own", "module": "own/family.py"}]
    content = {"name": "e", "source": {"tables": {"d": "d.csv"}}, "label": "y", "models": models}
    path = tmp_path / "experiment.yaml"
    path.write_text(json.dumps(content | {"transform_module": "features.py"}))
    return path


def test_imported_files_are_in_the_specs_and_in_the_resolved_experiment(experiment, capsys):
    def specs() -> list[str]:
        found = plan_training(load(experiment), str(experiment.parent / "root"))
        return [found["ingest"], found["preprocess"], json.loads(found["members"])[0]["train"]]

    before = specs()
    assert main(["validate", "--resolved", str(experiment)]) == 0
    assert plan_training(parse(capsys.readouterr().out), str(experiment.parent / "root"))["preprocess"] == before[1]
    (experiment.parent / "helpers.py").write_text("def clean(x):\n    return 2 * x\n")
    assert [a == b for a, b in zip(before, specs(), strict=True)] == [True, False, True]
    before = specs()
    (experiment.parent / "own" / "layers.py").write_text("def width():\n    return 5\n")
    assert [a == b for a, b in zip(before, specs(), strict=True)] == [True, True, False]
    assert load(experiment).models[0].family_of_module().width == 5


def test_validate_names_an_import_that_is_not_installed_and_its_advice_works(experiment, capsys):
    assert main(["validate", str(experiment)]) == 0
    (experiment.parent / "helpers.py").write_text("import re, keras_tuner\n")
    capsys.readouterr()
    assert main(["validate", str(experiment)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(
        "error [missing-package] transform_module, helpers.py, line 1: got the import of 'keras_tuner'"
    )
    assert "import it inside the function that needs it" in message  # as `run_fn` of FEATURES does


@pytest.mark.parametrize(
    ("signature", "received"), [("inputs", None), ("inputs, custom_config", {}), ("inputs, custom_config=None", None)]
)
def test_a_custom_config_without_default_is_empty(signature, received):
    name = "custom_config" if "custom" in signature else "None"
    function = module_function.load(f"def preprocessing_fn({signature}):\n    return {name}\n")
    assert function({}) == received
