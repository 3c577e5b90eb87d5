import pytest

from tests.data.runs import Runner


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Gives each test its own cache of file hashes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)
