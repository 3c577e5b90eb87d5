from tidemill.cli import run_command
from tidemill.local.run_outputs import collect_outputs
from tidemill.local.step_states import Step


def test_lost_values_reach_the_terminal(tmp_path, capsys):
    lost = {"site": "site: 40 % of its values contain a line break."}
    output = {"uri": str(tmp_path), "type": "system.Artifact", "metadata": {"count": 0, "lost": lost}}
    steps = [Step("validate", "validate", True, "validate", outputs={"anomalies": output, "rows": 3.0})]
    outputs = collect_outputs(steps, tmp_path / "reports")
    assert outputs.lost == list(lost.values())
    run_command._print_outputs(outputs)
    assert "lost values  site: 40 %" in capsys.readouterr().out
