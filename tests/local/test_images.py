"""The images that compiled pipelines name: `tidemill compile --images --tag --digest --cpu-only --output`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import tidemill
from tests.cli.toy_experiment import write
from tidemill.cli.main import main
from tidemill.errors import Code, TidemillError
from tidemill.local import definitions
from tidemill.local.images import RELEASED, Images, asks_for_gpu, gpu_counts, image_names, named_images
from tidemill.runtime import CPU_ONLY
from tidemill.version import CPU_IMAGE, GPU_IMAGE, __version__

DIGEST = f"sha256:{'0' * 64}"
NAMES = [definition.name for definition in definitions.definitions()]


def documents(text: str) -> list[dict]:
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def spec(file: Path) -> dict:
    return documents(file.read_text())[0]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, Path]:
    """Every definition's compiled YAML with the released images, as checked in."""
    return {definition.name: definition.compiled for definition in definitions.definitions()}


def written(compiled: Path, folder: Path, images: Images) -> Path:
    copy = folder / compiled.name
    copy.write_text(compiled.read_text())
    images.write_into(copy)
    return copy


@pytest.mark.parametrize("name", NAMES)
def test_names_every_image_and_changes_nothing_else(compiled, tmp_path, name):
    images = Images("registry/c@sha256:1", "registry/g@sha256:2")
    file = written(compiled[name], tmp_path, images)
    text = file.read_text().replace(images.cpu, CPU_IMAGE).replace(images.gpu, GPU_IMAGE)
    assert image_names(spec(file)) <= {images.cpu, images.gpu}
    assert documents(text) == documents(compiled[name].read_text())
    assert text.splitlines()[0] == compiled[name].read_text().splitlines()[0]


@pytest.mark.parametrize("name", NAMES)
def test_with_cpu_only_no_step_names_the_gpu_image_or_asks_for_a_gpu(compiled, tmp_path, name):
    file = written(compiled[name], tmp_path, Images("c", "c", cpu_only=True))
    assert image_names(spec(file)) <= {"c"}
    assert not gpu_counts(spec(file)) and "accelerator:" not in file.read_text()
    executors = spec(file)["deploymentSpec"]["executors"]
    envs = {label: e["container"]["env"] for label, e in executors.items() if "env" in e.get("container", {})}
    plans = {label for label in executors if label == "exec-plan-training"}
    assert envs == {label: [{"name": CPU_ONLY, "value": "1"}] for label in plans}


def test_the_released_images_leave_the_file_alone(compiled, tmp_path):
    assert written(compiled["train"], tmp_path, RELEASED).read_bytes() == compiled["train"].read_bytes()
    assert set(gpu_counts(spec(compiled["train"]))) == {"train"}


@pytest.mark.parametrize(("gpus", "asks"), [("", False), ("0", False), ("1", True), (2, True)])
def test_a_step_asks_for_gpus_if_its_parameter_says_so(compiled, gpus, asks):
    count = gpu_counts(spec(compiled["train"]))["train"]
    assert asks_for_gpu(count, {"pipelinechannel--gpus": gpus, "pipelinechannel--cpu": "1"}) is asks
    assert asks_for_gpu(str(gpus), {}) is asks


def test_names_by_registry_tag_and_digest(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # without Docker: no digest is looked up
    assert named_images() == RELEASED
    assert named_images(tag="abc").cpu == "tidemill-python-cpu:abc"
    assert named_images("reg/a/").gpu == f"reg/a/tidemill-python-gpu:{__version__}"
    assert named_images("reg", "abc", digests={"gpu": DIGEST}) == Images(
        "reg/tidemill-python-cpu:abc", f"reg/tidemill-python-gpu@{DIGEST}"
    )
    assert named_images("reg", cpu_only=True).used() == [f"reg/tidemill-python-cpu:{__version__}"]


@pytest.mark.parametrize("digests", [{"cpu": "1234"}, {"tpu": DIGEST}, {"": ""}])
def test_rejects_what_is_no_digest_of_an_image(digests):
    with pytest.raises(TidemillError, match="write cpu=sha256") as raised:
        named_images("reg", digests=digests)
    assert raised.value.code is Code.INVALID_VALUE


class TestCommand:
    def test_writes_the_yamls_to_a_folder_and_prints_the_images(self, tmp_path, capsys):
        options = ["--images", "reg", "--digest", f"cpu={DIGEST}", "--tag", "1", "--output", str(tmp_path)]
        assert main(["compile", "ensemble", "member", *options]) == 0
        out = capsys.readouterr().out.splitlines()
        files = [tmp_path / "components" / "ensemble.yaml", tmp_path / "pipelines" / "nested" / "member.yaml"]
        assert out[:2] == [f"written: {file}" for file in files]
        assert out[2:] == [f"image: reg/tidemill-python-cpu@{DIGEST}", "image: reg/tidemill-python-gpu:1"]
        assert image_names(spec(files[0])) == {"reg/tidemill-python-gpu:1"}

    @pytest.mark.parametrize(
        ("options", "names"),
        [(["--tag", "1"], "--tag"), (["--cpu-only"], "--cpu-only"), (["--output", "x", "--check"], "--check")],
    )
    def test_leaves_the_checked_in_yamls_alone(self, capsys, options, names):
        assert main(["compile", "train", *options]) == 2
        assert capsys.readouterr().err.startswith(f"error [invalid-value] {names}: got ")

    @pytest.mark.parametrize("options", [{"tag": "1"}, {"cpu_only": True}, {"runner": "doker"}])
    def test_the_python_api_rejects_the_same(self, tmp_path, options):
        with pytest.raises(TidemillError, match="docker") as raised:
            tidemill.run(write(tmp_path, "a"), root=tmp_path / "root", **options)
        assert raised.value.code is Code.INVALID_VALUE
        assert not (tmp_path / "root").exists()

    def test_processes_have_no_images(self, tmp_path, capsys):
        assert main(["run", write(tmp_path, "a"), "--root", str(tmp_path / "root"), "--tag", "1"]) == 2
        assert "add --runner docker" in capsys.readouterr().err
        assert not (tmp_path / "root").exists()
