import pyarrow as pa
import pytest

from tests.validation.shop_data import shop, spec, write
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.transform import text_numbers
from tidemill.transform.raw import raw_columns

CASES = [
    (["1.5", r"\N", "2"], [r"such as '\\N'", "csv.nullstr"]),
    (["1,234.50", "1", None], ["'1,234.50'", "csv.thousands"]),
    (["01", "2", None], ["'01'", "; cast it in the query or declare its type"]),
    (["1.5", "2.25", None], ["'1.5'", 'remove csv.decimal_separator of the table if it is ","', "declare its type"]),
]


@pytest.mark.parametrize(("values", "words"), CASES)
def test_names_the_values_that_are_not_numbers(tmp_path, values, words):
    table = shop(3).set_column(1, "price", pa.array(values))
    data = Dataset(write(tmp_path / "examples", {"train": table}))
    with pytest.raises(TidemillError) as error:
        text_numbers.check(spec().features, data.schema(), data)
    assert error.value.code is Code.FEATURE_TYPE
    for word in words:
        assert word in str(error.value)


def test_says_how_the_query_makes_a_feature_of_a_time():
    schema = pa.schema([("at", pa.timestamp("us"))])
    with pytest.raises(TidemillError, match=r'hour\("at"\)') as error:
        raw_columns(schema, ["at"])
    assert error.value.code is Code.FEATURE_TYPE
