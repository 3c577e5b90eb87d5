"""The message about malformed rows says what to do, and what it says makes the file readable."""

import pytest

from tests.data.runs import rows
from tidemill.errors import Code, TidemillError

GOOD = rows(200)
LATIN = b"id,name,y\n" + b"".join(b"%d,K\xf6ln,%d\n" % (i, i % 2) for i in range(60))
FIX = "fix the rows"
NUMBERS = "say with csv.decimal_separator and csv.thousands of the table how numbers are written"
ADVICE = {
    # name: (content, options of the table, advice, options that read the file)
    "a-row-too-long": (
        GOOD.replace("\n7,3.5,", "\n7,3.5,0,"), {}, f"; {FIX} or raise source.max_bad_share above 0.", None,
    ),
    "latin-1": (LATIN, {}, "; set csv.encoding of the table", {"csv": {"encoding": "latin-1"}}),
    "title": ("Report of May\n" + GOOD, {}, "; set csv.skip of the table", {"csv": {"skip": 1}}),
    "german": (
        GOOD.replace(",", ";").replace(".0;", ".000,00;").replace(".5;", ".242,30;"),
        {"delimiter": ";", "columns": {"x": "DOUBLE"}},
        f"; {NUMBERS}, correct the declared type of 'x', or {FIX}.",
        {"delimiter": ";", "columns": {"x": "DOUBLE"}, "csv": {"decimal_separator": ",", "thousands": "."}},
    ),
    "points-with-a-comma": (
        GOOD.replace(",", ";"), {"columns": {"x": "DOUBLE"}, "csv": {"delim": ";", "decimal_separator": ","}},
        f"; {NUMBERS}, correct", {"columns": {"x": "DOUBLE"}, "delimiter": ";"},
    ),
    "declared-type": (GOOD, {"columns": {"x": "BOOLEAN"}}, f"; correct the declared type of 'x' or {FIX}.", {}),
    "fractions": (GOOD, {"columns": {"x": "BIGINT"}}, f"; correct the declared type of 'x', {FIX}, or raise", {}),
    "rare-text": (
        GOOD.replace("\n12,", "\nten,"), {}, f"; declare the column's type, {FIX}, or raise",
        {"columns": {"id": "VARCHAR"}},
    ),
    "date": (
        GOOD.replace(".5", ".12.2020").replace(",1,", ",1.12.2020,").replace(",0,", ",1.12.2020,"),
        {"columns": {"x": "DATE"}}, "; set csv.dateformat of the table", {"csv": {"dateformat": "%d.%m.%Y"}},
    ),
    "not-json": (GOOD, {"format": "jsonl"}, f"; set format of the table to that of the file or {FIX}.", {}),
    "number-in-json": ('{"y": 1, "x": "a"}\n', {"format": "jsonl", "columns": {"x": "DOUBLE"}}, "; correct", None),
}  # fmt: skip


@pytest.mark.parametrize("case", ADVICE)
def test_says_what_to_do_about_malformed_rows(runner, case):
    content, options, advice, remedy = ADVICE[case]
    path = runner.write("a.csv", content)
    with pytest.raises(TidemillError) as error:
        runner.run({"t": {"uri": path, **options}})
    assert error.value.code is Code.MALFORMED_ROWS
    assert advice in str(error.value)
    if remedy is not None:
        runner.run({"t": {"uri": path, **remedy}})
        assert not runner.quarantined()
