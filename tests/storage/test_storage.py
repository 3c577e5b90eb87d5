"""Files and folders by URI, on the local disk and in a bucket."""

import json
import logging
import sys
import zipfile

import pytest

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.errors import Code, TidemillError
from tidemill.storage.files import google


@pytest.fixture(params=["local", "gs"])
def root(request, tmp_path):
    """The URI of a local folder and of a bucket's folder, which do not exist yet."""
    if request.param == "local":
        return str(tmp_path / "root")
    return request.getfixturevalue("bucket") + "/root"


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
def test_joins_uris(uri, parts, joined):
    assert storage.join(uri, *parts) == joined


def test_write_text_replaces_the_file(root):
    uri = storage.join(root, "deep", "note.txt")
    assert not storage.exists(uri)
    with pytest.raises(FileNotFoundError):
        storage.read_text(uri)
    storage.write_text(uri, "old")
    storage.write_text(uri, "nëw")
    assert storage.exists(uri)
    assert storage.read_text(uri) == "nëw"
    assert [f.uri for f in storage.list_files(storage.join(root, "**"))] == [uri]


def test_lists_files_and_folders(root):
    for name in ["a/1.csv", "a/2.csv", "b/day=1/3.csv", "b/day=2/deeper/4.csv", "5.txt"]:
        storage.write_text(storage.join(root, name), name)

    def names(pattern):
        return [f.uri.removeprefix(root + "/") for f in storage.list_files(storage.join(root, pattern))]

    assert names("a/*.csv") == ["a/1.csv", "a/2.csv"]
    assert names("a/[2-9].csv") == ["a/2.csv"]
    assert names("b/day=*/*.csv") == ["b/day=1/3.csv"]
    assert names("**/*.csv") == ["a/1.csv", "a/2.csv", "b/day=1/3.csv", "b/day=2/deeper/4.csv"]
    assert names("5.txt") == ["5.txt"]
    assert names("6.txt") == names("a") == names("c/*") == []
    assert storage.list_folders(root) == ["a", "b"]
    assert storage.list_folders(storage.join(root, "b")) == ["day=1", "day=2"]
    assert storage.list_folders(storage.join(root, "nowhere")) == []
    assert [f.bytes for f in storage.list_files(storage.join(root, "5.txt"))] == [5]


def test_version_changes_with_the_bytes(root):
    uri = storage.join(root, "x")
    storage.write_text(uri, "one")
    (first,) = storage.list_files(uri)
    storage.write_text(uri, "two")
    (second,) = storage.list_files(uri)
    assert first.version != second.version
    assert first.bytes == second.bytes


def test_the_version_of_an_object_is_its_md5(bucket):
    storage.write_text(f"{bucket}/x", "hello")
    (info,) = storage.list_files(f"{bucket}/x")
    assert info.version == "md5:5d41402abc4b2a76b9719d911017c592"


def test_uploads_and_downloads_a_folder(root, tmp_path):
    files = {"a.txt": "a", "deep/b.txt": "b"}
    source = sealed(tmp_path / "source", files)
    storage.upload_folder(source, root)
    storage.download_folder(root, tmp_path / "copy")
    artifact.open_folder(tmp_path / "copy", deep=True)
    assert {n: (tmp_path / "copy" / n).read_text() for n in files} == files
    with pytest.raises(FileExistsError):
        storage.download_folder(root, tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        storage.download_folder(storage.join(root, "nothing"), tmp_path / "other")
    assert not list(tmp_path.glob("*.partial"))


def test_publishes_a_version_once(root, tmp_path):
    source = sealed(tmp_path / "source", {"model.txt": "1", "variables/v": "2"}, name="m")
    storage.publish_folder(source, storage.join(root, "3"))
    manifest = json.loads(storage.read_text(storage.join(root, "3", "manifest.json")))
    assert manifest["metadata"] == {"name": "m"}
    assert storage.list_folders(root) == ["3"]
    other = sealed(tmp_path / "other", {"model.txt": "other"})
    with pytest.raises(FileExistsError):
        storage.publish_folder(other, storage.join(root, "3"))
    assert storage.read_text(storage.join(root, "3", "model.txt")) == "1"


def test_publishes_over_the_files_of_a_killed_publication(root, tmp_path):
    target = storage.join(root, "1")
    storage.write_text(storage.join(target, "half.txt"), "half")
    storage.publish_folder(sealed(tmp_path / "source", {"model.txt": "1"}), target)
    names = [f.uri.removeprefix(target + "/") for f in storage.list_files(storage.join(target, "**"))]
    assert names == ["manifest.json", "model.txt"]


def test_rejects_a_folder_without_a_manifest(root, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.txt").write_text("1")
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        storage.publish_folder(tmp_path / "source", storage.join(root, "1"))
    assert not storage.exists(root)


def test_a_failed_upload_publishes_nothing(bucket, tmp_path):
    """The connection breaks after the first file, before the manifest is written."""
    source = sealed(tmp_path / "source", {"a.txt": "1", "b.txt": "2"})
    remaining = {"files": 1}
    put = google().put_file

    def fail_later(*args, **kwargs):
        if remaining["files"] == 0:
            raise ConnectionError("connection lost")
        remaining["files"] -= 1
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


def test_reads_a_file_of_a_package_without_importing_it(tmp_path, monkeypatch):
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
def test_rejects_unknown_packages_and_schemes(uri, code):
    with pytest.raises(TidemillError) as error:
        storage.list_files(uri)
    assert error.value.code is code


def test_brackets_are_literal_if_the_file_exists(tmp_path):
    (tmp_path / "x[1].csv").write_text("a")
    assert [f.uri for f in storage.list_files(str(tmp_path / "x[1].csv"))] == [str(tmp_path / "x[1].csv")]


def test_open_file_is_seekable(root):
    uri = storage.join(root, "x.zip")
    if path := storage.local_path(uri):
        path.parent.mkdir(parents=True)
        file = path.open("wb")
    else:
        file = google().open(uri, "wb")
    with file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "hello")
    with storage.open_file(uri) as stream, zipfile.ZipFile(stream) as archive:
        assert archive.read("a.txt") == b"hello"


def test_gcsfs_logs_a_message_once(bucket, caplog):
    google()
    google()
    for bucket in ("a", "b", "a"):
        logging.getLogger("gcsfs").warning("no permission for the layout of bucket %s", bucket)
    assert [record.getMessage()[-1] for record in caplog.records if record.name == "gcsfs"] == ["a", "b"]
