import pytest

from tests.data.runs import Runner


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Hashes are remembered in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)
