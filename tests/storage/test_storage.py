import json
import sys
import zipfile

import pytest

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.errors import Code, TidemillError
from tidemill.storage.files import google


@pytest.fixture(params=["local", "gs"])
def place(request, tmp_path):
    """A URI of each kind under which nothing is."""
    if request.param == "local":
        return str(tmp_path / "place")
    return request.getfixturevalue("bucket") + "/place"


def sealed(path, files, **metadata):
    with artifact.write_folder(path, metadata) as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return path


@pytest.mark.parametrize(
    ("uri", "parts", "joined"),
    [
        ("gs://b", ["a", "b"], "gs://b/a/b"),
        ("gs://b/x/", ["/a/"], "gs://b/x/a"),
        ("/tmp/x", ["a"], "/tmp/x/a"),
        ("/", ["a"], "/a"),
        ("x", ["a", "b.json"], "x/a/b.json"),
    ],
)
def test_join(uri, parts, joined):
    assert storage.join(uri, *parts) == joined


def test_text_is_replaced_as_a_whole(place):
    uri = storage.join(place, "deep", "note.txt")
    assert not storage.exists(uri)
    with pytest.raises(FileNotFoundError):
        storage.read_text(uri)
    storage.write_text(uri, "old")
    storage.write_text(uri, "nëw")
    assert storage.exists(uri)
    assert storage.read_text(uri) == "nëw"
    assert [f.uri for f in storage.list_files(storage.join(place, "**"))] == [uri]


def test_listing(place):
    for name in ["a/1.csv", "a/2.csv", "b/day=1/3.csv", "b/day=2/deeper/4.csv", "5.txt"]:
        storage.write_text(storage.join(place, name), name)

    def names(pattern):
        return [f.uri.removeprefix(place + "/") for f in storage.list_files(storage.join(place, pattern))]

    assert names("a/*.csv") == ["a/1.csv", "a/2.csv"]
    assert names("a/[2-9].csv") == ["a/2.csv"]
    assert names("b/day=*/*.csv") == ["b/day=1/3.csv"]
    assert names("**/*.csv") == ["a/1.csv", "a/2.csv", "b/day=1/3.csv", "b/day=2/deeper/4.csv"]
    assert names("5.txt") == ["5.txt"]
    assert names("6.txt") == names("a") == names("c/*") == []
    assert storage.list_folders(place) == ["a", "b"]
    assert storage.list_folders(storage.join(place, "b")) == ["day=1", "day=2"]
    assert storage.list_folders(storage.join(place, "nowhere")) == []
    assert [f.bytes for f in storage.list_files(storage.join(place, "5.txt"))] == [5]


def test_version_changes_with_the_bytes(place):
    uri = storage.join(place, "x")
    storage.write_text(uri, "one")
    (first,) = storage.list_files(uri)
    storage.write_text(uri, "two")
    (second,) = storage.list_files(uri)
    assert first.version != second.version
    assert first.bytes == second.bytes


def test_objects_carry_md5(bucket):
    storage.write_text(f"{bucket}/x", "hello")
    (info,) = storage.list_files(f"{bucket}/x")
    assert info.version == "md5:5d41402abc4b2a76b9719d911017c592"


def test_folder_travels(place, tmp_path):
    files = {"a.txt": "a", "deep/b.txt": "b"}
    source = sealed(tmp_path / "source", files)
    storage.upload_folder(source, place)
    storage.download_folder(place, tmp_path / "copy")
    artifact.open_folder(tmp_path / "copy", deep=True)
    assert {n: (tmp_path / "copy" / n).read_text() for n in files} == files
    with pytest.raises(FileExistsError):
        storage.download_folder(place, tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        storage.download_folder(storage.join(place, "nothing"), tmp_path / "other")
    assert not list(tmp_path.glob("*.partial"))


def test_publish_once(place, tmp_path):
    source = sealed(tmp_path / "source", {"model.txt": "1", "variables/v": "2"}, name="m")
    storage.publish_folder(source, storage.join(place, "3"))
    found = json.loads(storage.read_text(storage.join(place, "3", "manifest.json")))
    assert found["metadata"] == {"name": "m"}
    assert storage.list_folders(place) == ["3"]
    other = sealed(tmp_path / "other", {"model.txt": "other"})
    with pytest.raises(FileExistsError):
        storage.publish_folder(other, storage.join(place, "3"))
    assert storage.read_text(storage.join(place, "3", "model.txt")) == "1"


def test_publish_over_remains(place, tmp_path):
    """What a killed publication left is no version, and does not survive in one."""
    target = storage.join(place, "1")
    storage.write_text(storage.join(target, "half.txt"), "half")
    storage.publish_folder(sealed(tmp_path / "source", {"model.txt": "1"}), target)
    names = [f.uri.removeprefix(target + "/") for f in storage.list_files(storage.join(target, "**"))]
    assert names == ["manifest.json", "model.txt"]


def test_publish_needs_a_manifest(place, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.txt").write_text("1")
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        storage.publish_folder(tmp_path / "source", storage.join(place, "1"))
    assert not storage.exists(place)


def test_failed_upload_publishes_nothing(bucket, tmp_path):
    """The connection breaks after the first file; the manifest, which would make it a version, was not yet written."""
    source = sealed(tmp_path / "source", {"a.txt": "1", "b.txt": "2"})
    stopped = {"after": 1}
    put = google().put_file

    def fail_later(*args, **kwargs):
        if stopped["after"] == 0:
            raise ConnectionError("gone")
        stopped["after"] -= 1
        put(*args, **kwargs)

    fs = google()
    fs.put_file = fail_later
    try:
        with pytest.raises(ConnectionError):
            storage.publish_folder(source, f"{bucket}/m/1")
    finally:
        del fs.put_file
    assert storage.exists(f"{bucket}/m/1/a.txt")
    assert not storage.exists(f"{bucket}/m/1/manifest.json")


def test_package_is_found_but_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "heavy_package"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "x.csv").write_text("a\n1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert storage.read_text("pkg://heavy_package/data/x.csv") == "a\n1\n"
    assert [f.uri for f in storage.list_files("pkg://heavy_package/data/*.csv")] == ["pkg://heavy_package/data/x.csv"]
    assert "heavy_package" not in sys.modules


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("pkg://no_such_package/x", Code.MISSING_PACKAGE),
        ("pkg://a.b/x", Code.MISSING_PACKAGE),
        ("s3://bucket/x", Code.INVALID_VALUE),
    ],
)
def test_unknown_places(uri, code):
    with pytest.raises(TidemillError) as error:
        storage.list_files(uri)
    assert error.value.code is code


def test_brackets_in_a_name_are_literal_where_the_file_exists(tmp_path):
    (tmp_path / "x[1].csv").write_text("a")
    assert [f.uri for f in storage.list_files(str(tmp_path / "x[1].csv"))] == [str(tmp_path / "x[1].csv")]


def test_open_file_is_seekable(place):
    uri = storage.join(place, "x.zip")
    if path := storage.local_path(uri):
        path.parent.mkdir(parents=True)
        file = path.open("wb")
    else:
        file = google().open(uri, "wb")
    with file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "hello")
    with storage.open_file(uri) as stream, zipfile.ZipFile(stream) as archive:
        assert archive.read("a.txt") == b"hello"
