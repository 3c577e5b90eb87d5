from tidemill.cli import run_command
from tidemill.local.run_outputs import collect_outputs
from tidemill.local.step_states import Step


def test_notes_on_the_data_reach_the_terminal(tmp_path, capsys):
    notes = {
        "unseen": ["user: 85.8 % of the rows of test have values that train does not contain, such as 'u7'"],
        "lost values": [f"site{i}: 40 % of its values contain a line break." for i in range(7)],
    }
    output = {"uri": str(tmp_path), "type": "system.Artifact", "metadata": {"count": 0, "notes": notes}}
    steps = [Step("validate", "validate", True, "validate", outputs={"anomalies": output, "rows": 3.0})]
    outputs = collect_outputs(steps, tmp_path / "reports")
    assert outputs.notes == notes
    run_command._print_outputs(outputs)
    out = capsys.readouterr().out
    assert "unseen       user: 85.8 % of the rows of test" in out
    assert "lost values  site4: 40 %" in out and "site5" not in out
    assert "lost values  2 more, see the report of validate" in out
