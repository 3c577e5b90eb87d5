"""Links resolve, and code blocks of all pages run or parse.

A block that cannot run in a test has an HTML comment on the line before it:

- `<!-- needs …: … -->` for what needs Google Cloud, KFP, the internet, a GPU or much time. Its syntax, imports and
  options are checked.
- `<!-- part of …: … -->` for YAML that is no part of an experiment.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import shutil

import pytest
import yaml

from tests.docs.markdown import PAGES, REPOSITORY, Block, anchors, blocks, links, name, prose
from tests.docs.samples import EXPERIMENT
from tests.test_architecture import LAYERS
from tidemill.cli import parser
from tidemill.experiment import Experiment, load

BLOCKS = [block for page in PAGES for block in blocks(page)]
LANGUAGES = {"sh", "yaml", "python", "json", "sql", "text", "dockerfile", "mermaid"}
OTHER_PROGRAMS = {"cd", "docker", "git", "kubectl", "mv", "tensorboard"}
"""Programs whose options are not checked here. Those of kubectl are checked in tests/cluster/test_page.py."""
GUIDE_MODULES = {"tidemill.profile", "tidemill.steps.profile"}
"""The modules that the guide to a new component writes."""
INSTRUCTIONS = {"FROM", "COPY", "RUN", "ENV", "WORKDIR", "ENTRYPOINT", "USER"}


def of_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def test_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150


def test_each_block_names_its_language():
    assert [f"{block}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES] == []


def test_code_is_fenced():
    """An indented block has no language, so nothing checks it."""
    indented = []
    for page in PAGES:
        before = ""
        for number, line in prose(page):
            if line.startswith("    ") and not before.strip():
                indented.append(f"{name(page)}:{number}")
            before = line if line.strip() else before if before.lstrip().startswith(("-", "1.")) else ""
    assert indented == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    broken = []
    for line, target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(f"{name(page)}:{line}: {target}")
        elif anchor and anchor not in anchors(file):
            broken.append(f"{name(page)}:{line}: {target}, not among {sorted(anchors(file))}")
    assert broken == []


@pytest.mark.parametrize("block", of_language("sh"), ids=str)
def test_commands_parse(block):
    for words in commands(block.text):
        check_command(words)


def commands(text: str) -> list[list[str]]:
    """Returns the commands of a shell block as words, without variables set before them."""
    lines = text.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*|!", words[0]):
            words.pop(0)
        if words:
            found.append(words)
    return found


def check_command(words: list[str]) -> None:
    """Checks a command's options as far as they are this repository's."""
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program == "tidemill":
        parse_command(arguments)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
        assert {word for word in arguments if "=" not in word} <= set(targets), words
    elif program == "python" and arguments[0] != "-m":
        script = REPOSITORY / arguments[0]
        assert script.is_file(), words
        for option in [word for word in arguments[1:] if word.startswith("--")]:
            assert f'"{option}"' in script.read_text(), f"{script.name} has no option {option}"
    elif program == "python":
        assert importlib.util.find_spec(arguments[1]), words
    elif program in ("pip", "uv"):
        for extra in re.findall(r"\[([a-z,]+)\]", " ".join(arguments)):
            config = configparser.ConfigParser()
            config.read(REPOSITORY / "setup.cfg")
            known = set(config["options.extras_require"])
            assert set(extra.split(",")) <= known or "jax[" in " ".join(arguments), words
    elif program.endswith(".sh"):
        assert (REPOSITORY / program).is_file(), words
    else:
        assert program in OTHER_PROGRAMS, f"unknown program {program}; write the block as text, or teach this test"


def parse_command(arguments: list[str]) -> argparse.Namespace:
    """Parses the arguments of `tidemill`."""
    try:
        return parser.build_parser().parse_args(arguments)
    except SystemExit as error:
        assert error.code == 0, f"tidemill {' '.join(arguments)} does not parse"
        return argparse.Namespace()


@pytest.fixture
def folder(tmp_path):
    """A folder with the files that experiments of the pages name."""
    shutil.copytree(REPOSITORY / "docs" / "examples", tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("block", of_language("yaml"), ids=str)
def test_experiments_parse(block, folder):
    if block.comment.startswith("part of"):
        assert yaml.safe_load(block.text) is not None
        return
    given = yaml.safe_load(block.text)
    unknown = given.keys() - Experiment.model_fields.keys()
    assert not unknown, f"{sorted(unknown)} are no keys of an experiment; write a comment `part of …` before the block"
    experiment = yaml.safe_load(EXPERIMENT)
    for key, other in (("labels", "label"), ("transform_module", "features")):
        if key in given:
            del experiment[other]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment | given))
    load(folder / "experiment.yaml")


@pytest.mark.parametrize("file", ["features.yaml", "module.yaml"])
def test_examples_of_the_configuration_reference_parse(folder, file):
    load(folder / file)


@pytest.mark.parametrize("block", of_language("json"), ids=str)
def test_json_parses(block):
    json.loads(block.text)


@pytest.mark.parametrize("block", of_language("dockerfile"), ids=str)
def test_dockerfiles_have_known_instructions(block):
    assert {line.split()[0] for line in block.text.splitlines() if line.strip()} <= INSTRUCTIONS


def runs(block: Block) -> bool:
    return not block.comment.startswith("needs")


def imports_tensorflow(page_blocks: list[Block]) -> bool:
    return any(re.search(r"tensorflow|keras|tidemill\.transform|load_model", block.text) for block in page_blocks)


def python_pages() -> list:
    """Returns the Python blocks of each page that run, with the marker of what they import."""
    cases = []
    for page in PAGES:
        if found := [block for block in blocks(page) if block.language == "python" and runs(block)]:
            marks = [pytest.mark.tensorflow] if imports_tensorflow(found) else []
            cases.append(pytest.param(found, id=name(page), marks=marks))
    return cases


@pytest.mark.parametrize("page_blocks", python_pages())
def test_python_runs(page_blocks, folder, monkeypatch):
    """The blocks of a page run one after the other, in a folder with the files of `docs/examples/`."""
    monkeypatch.chdir(folder)
    namespace: dict = {"__name__": "__page__"}
    for block in page_blocks:
        exec(compile(block.text, str(block), "exec"), namespace)


@pytest.mark.parametrize("block", [b for b in of_language("python") if not runs(b)], ids=str)
def test_python_names_and_options_exist(block):
    tree = ast.parse(block.text)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported[alias.asname or alias.name.partition(".")[0]] = alias.name.partition(".")[0]
                assert importlib.util.find_spec(alias.name), f"{block}: no module {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module and node.module not in GUIDE_MODULES:
            for alias in node.names:
                assert is_defined(node.module, alias.name), f"{block}: no {alias.name} in {node.module}"
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        dotted = ast.unparse(call.func)
        first, _, rest = dotted.partition(".")
        target = ".".join(filter(None, [imported.get(first, ""), rest]))
        if target.startswith("tidemill.") and target.count(".") == 1:
            parameters = inspect.signature(
                getattr(importlib.import_module("tidemill"), target.split(".")[1])
            ).parameters
            named = {keyword.arg for keyword in call.keywords if keyword.arg}
            assert named <= set(parameters), f"{block}: {target} takes {list(parameters)}"


def is_defined(module: str, attribute: str) -> bool:
    """Returns whether a module defines a name, without importing the module if it is Tidemill's."""
    if importlib.util.find_spec(module) is None:
        return False
    if not module.startswith("tidemill"):
        return hasattr(importlib.import_module(module), attribute) if module.partition(".")[0] == "kfp" else True
    spec = importlib.util.find_spec(module)
    if spec.submodule_search_locations and importlib.util.find_spec(f"{module}.{attribute}"):
        return True
    names = set()
    with open(spec.origin, encoding="utf-8") as file:
        for node in ast.walk(ast.parse(file.read())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.Name):
                names.add(node.id)
    return attribute in names


def test_architecture_shows_the_layers_that_the_tests_hold():
    [block] = [b for b in blocks(REPOSITORY / "docs" / "architecture.md") if b.text.startswith("__main__")]
    packages = [line.partition("  ")[0] for line in block.text.splitlines()]
    assert [line for line in packages if line] == LAYERS


def test_site_builds_without_warnings(tmp_path):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(REPOSITORY / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    assert (tmp_path / "site" / "configuration.html").is_file()
