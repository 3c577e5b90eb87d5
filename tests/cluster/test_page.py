"""The commands of the page on clusters: kubectl's without a mark run, and kubectl knows the options of the others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.tool import TOOL, Cluster
from tests.docs.markdown import REPOSITORY, Block, blocks
from tests.docs.test_pages import commands

pytestmark = pytest.mark.cluster

PAGE = REPOSITORY / "docs" / "cluster.md"
BLOCKS = [block for block in blocks(PAGE) if block.language == "sh" and "kubectl" in block.text]
GROUPS = {"auth", "config", "rollout"}
"""Commands of kubectl that have commands of their own."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A search path with the cluster's kubectl."""
    (tmp_path / "kubectl").write_text(f'#!/bin/sh\nexec "{TOOL}" kubectl "$@"\n')
    (tmp_path / "kubectl").chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.comment], ids=str)
def test_commands_run(cluster: Cluster, block: Block, path):
    for line in block.text.splitlines():
        command = ["bash", "-c", line]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.comment], ids=str)
def test_kubectl_knows_the_options(cluster: Cluster, block: Block):
    for words in commands(block.text):
        if words[0] == "kubectl":
            arguments = words[3:] if words[1] == "-n" else words[1:]
            verb = arguments[: 2 if arguments[0] in GROUPS else 1]
            known = cluster.kubectl(*verb, "--help") + cluster.kubectl("options")
            options = [word.partition("=")[0] for word in arguments if word.startswith("-")]
            for option in options:
                assert f"{option}=" in known or f"{option}," in known, f"kubectl {' '.join(verb)} has no {option}"
            for file in [word for word in arguments if word.startswith("manifests/")]:
                assert (REPOSITORY / file).exists(), f"{block}: no {file}"
