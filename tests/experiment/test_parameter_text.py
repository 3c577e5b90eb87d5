"""The experiment's text on its way to a step: Kubernetes, Argo and the user's hands."""

from __future__ import annotations

import json
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from tidemill.errors import Code, TidemillError
from tidemill.experiment import as_parameter, dump, parse
from tidemill.experiment.parameter_text import MAX_BYTES, encode, parameter_bytes, read_parameter, without_digest

EXPERIMENT = {
    "name": "small",
    "source": {"tables": {"t": "/data/t.csv"}},
    "label": "y",
    "features": {"x": {"kind": "numeric"}},
    "models": [{"family": "gbdt"}],
}
ENVIRONMENT = {"HOME": "/root", "KFP_POD_NAME": "pod", "x": "1"}
ARGO = {"workflow.name": "run-1", "workflow.uid": "u", "inputs.parameters.x": "7", "pod.name": "p", "retries": "0"}


MACROS = {"RunUUID": "u", "CurrentTime": "20261129000000", "CurrentTime.2006": "2026"}


def kubeflow(text: str) -> str:
    """Replaces the macros of Kubeflow's API server."""
    return re.sub(r"\[\[(.*?)\]\]", lambda match: MACROS.get(match[1], match[0]), text)


def kubernetes(argument: str) -> str:
    """Expands a container's argument as Kubernetes documents it: `$(NAME)` if NAME is defined, and `$$` to `$`."""
    return re.sub(
        r"\$\$|\$\(([^)]*)\)",
        lambda match: "$" if match[0] == "$$" else ENVIRONMENT.get(match[1], match[0]),
        argument,
    )


def argo(text: str) -> str:
    """Replaces the tags of Argo's templates, `{{name}}` and the expressions `{{=name}}`, inside of JSON text."""
    return re.sub(r"\{\{=?\s*([^{}]*?)\s*\}\}", lambda match: ARGO.get(match[1], match[0]), text)


def carried(text: str) -> str:
    """Carries a parameter's value to a step: as JSON in Argo's workflow, then as JSON in a container's argument."""
    workflow = argo(json.dumps({"parameters": {"experiment": kubeflow(text)}}))
    executor_input = json.dumps({"inputs": {"parameterValues": json.loads(workflow)["parameters"]}})
    argument = kubernetes(json.loads(argo(json.dumps([executor_input])))[0])
    return json.loads(argument)["inputs"]["parameterValues"]["experiment"]


PIECES = st.sampled_from(
    ["$", "$$", "$(HOME)", "$(x)", "$(nowhere)", "{{", "}}", "{{workflow.name}}", "{{=retries}}", "{{{pod.name}}}", "%"]
    + ["[[", "[[[", "]]", "[[RunUUID]]", "[[CurrentTime]]", "[[CurrentTime.2006]]"]
    + [
        "'",
        '"',
        "\\",
        "\\\\$",
        "\\u0024",
        "\n",
        "\r\n",
        "\t",
        "\x00",
        "é",
        "\u2028",
        "😀",
        "select x from t where y = $x",
    ]
    + [chr(code) for code in range(128)]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60))


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(sql=TEXTS, key=TEXTS)
def test_any_text_arrives_as_it_was_written(sql, key):
    data = {"name": "x", "source": {"sql": sql, "parameters": {key: sql}}, "nested": [[[sql], []]]}
    text = carried(encode(data))
    assert without_digest(json.loads(text)) == data


def test_the_models_of_kubeflow_argo_and_kubernetes_change_a_text_that_is_not_encoded():
    text = json.dumps({"sql": "$$ $(HOME) {{workflow.name}} [[RunUUID]] $(nowhere) {{nothing}} [[nothing]]"})
    assert json.loads(carried(text)) == {"sql": "$ /root run-1 u $(nowhere) {{nothing}} [[nothing]]"}


def test_the_text_stays_readable():
    text = encode({"source": {"sql": 'select x as "a", $late as b\nfrom t -- {x}'}})
    assert r"select x as \"a\", $late as b\nfrom t -- {x}" in text


def test_a_changed_text_is_refused_and_says_how_to_go_on():
    text = dump(parse(json.dumps(EXPERIMENT)))
    assert parse(text) == parse(json.dumps(EXPERIMENT))
    changed = text.replace('"gbdt"', '"lr"')
    with pytest.raises(TidemillError, match="delete its entry 'digest'") as caught:
        parse(changed)
    assert (caught.value.code, caught.value.where) == (Code.INVALID_VALUE, "experiment.digest")
    without = re.sub(r' "digest": "\w+",\n', "", changed)
    assert parse(without).models[0].family == "lr"


def test_a_text_of_500_kb_travels_as_the_uri_of_a_file(tmp_path):
    sql = "select x, y from t where x <> '$(HOME) {{workflow.name}} $$'\n" * 8000
    experiment = parse(json.dumps(EXPERIMENT | {"source": EXPERIMENT["source"] | {"sql": sql}}))
    text = dump(experiment)
    assert len(text) > 500_000
    value = as_parameter(text, str(tmp_path))
    assert len(value) < 200 and value.startswith(f"{tmp_path}/experiments/")
    assert parse(carried(value)) == experiment
    small = dump(parse(json.dumps(EXPERIMENT)))
    assert as_parameter(small, str(tmp_path)) == small and len(small) < MAX_BYTES


def test_the_size_of_a_text_counts_three_levels_of_json():
    # Go's JSON writes <, > and & as escape sequences.
    assert [parameter_bytes(text) - parameter_bytes("") for text in ("x", '"', "\n", "<", "é")] == [1, 8, 5, 7, 2]


def test_a_uri_that_cannot_be_read_is_a_mistake(tmp_path):
    with pytest.raises(TidemillError) as caught:
        read_parameter(f"{tmp_path}/none.json")
    assert caught.value.code is Code.MISSING_FILE
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(TidemillError) as caught:
        read_parameter(f"{tmp_path}/binary\n")
    assert caught.value.code is Code.UNREADABLE_FILE
