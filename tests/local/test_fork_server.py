"""The fork server: each step runs in a child of its own, which behaves like a new process."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kfp import dsl

from tests.shop import wait_for
from tidemill.errors import Code, TidemillError
from tidemill.local import fork_server
from tidemill.local.fork_server import ForkServer
from tidemill.local.pipeline_runner import needs_server
from tidemill.local.step_processes import StepProcesses

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="the server runs on Linux only"),
]
# Imported faster than TensorFlow.
LIGHT = ("numpy", "kfp.dsl.executor")
_OTHER_LINES = re.compile(r"\[KFP| +\d+\.\d s  done$")


@dsl.component(base_image="tidemill-python-test", install_kfp_package=False)
def execute(program: str):
    """Executes a program in a step."""
    from tidemill.runtime import step

    with step("execute"):
        exec(program, {})


class Caller:
    """Runs programs as steps.

    Args:
        server: The fork server; None: each program runs in a new process.
        folder: Folder for the log and other files.
    """

    def __init__(self, server: ForkServer | None, folder: Path):
        self.server, self.folder = server, folder
        self.log = folder / "step.log"
        self.processes = StepProcesses()

    def __call__(self, program: str, **env: str) -> int:
        """Returns the exit code."""
        inputs = {"inputs": {"parameterValues": {"program": program}}}
        executor_input = json.dumps({**inputs, "outputs": {"outputFile": str(self.folder / "outputs.json")}})
        container = execute.component_spec.implementation.container
        script, source = (part.replace("python3", sys.executable) for part in container.command[2:])
        arguments = ["--executor_input", executor_input, "--function_to_execute", "execute"]
        env = {
            **os.environ,
            "TMPDIR": str(self.folder),
            "TIDEMILL_RUN_PID": str(os.getpid()),
            "TIDEMILL_ERROR_FILE": str(self.folder / "error.json"),
            **env,
        }
        command = ["sh", "-ec", script, source, *arguments]
        return self.processes.run(command, env, self.log, name="execute", server=self.server)

    def output(self, program: str, **env: str) -> str:
        """Returns the last line that the program prints, apart from kfp's and the step's."""
        self.log.unlink(missing_ok=True)
        assert self(program, **env) == 0, self.log.read_text()
        return [line for line in self.log.read_text().splitlines() if not _OTHER_LINES.match(line)][-1]


@pytest.fixture(scope="module")
def server():
    server = ForkServer(dict(os.environ), LIGHT)
    assert server.wait()
    yield server
    server.kill()


@pytest.fixture
def call(server, tmp_path) -> Caller:
    return Caller(server, tmp_path)


PROGRAMS = {
    "success": ("print('done')", 0, "done"),
    "defect": ("raise ValueError('a defect')", 1, "ValueError: a defect"),
    "exit": ("raise SystemExit(5)", 5, ""),
    "killed": ("import os; os.kill(os.getpid(), 9)", 137, ""),
    "preempted": ("from tidemill.runtime import Preempted; raise Preempted", 143, "was interrupted"),
    "mistake": (
        "from tidemill.errors import Code, TidemillError; raise TidemillError(Code.EMPTY_INPUT, 'w', 'g', 'x')",
        2,
        "error [empty-input] w: got g; x.",
    ),
    "output of other processes": ("import os; os.system('echo loud; echo louder >&2')", 0, "louder"),
    "at exit": ("import atexit; atexit.register(print, 'ended')", 0, "ended"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_ends_like_a_new_process(call, tmp_path, case):
    program, exit_code, text = PROGRAMS[case]
    assert call(program) == exit_code
    assert text in call.log.read_text()
    assert (tmp_path / "error.json").exists() == (case == "mistake")
    assert (tmp_path / "ephemeral_component.py").exists() is False


FACTS = """
import json, os, signal, sys, tempfile, __main__
facts = {
    "env": sorted(f"{k}={v}" for k, v in os.environ.items() if k not in ("_", "SHLVL", "OLDPWD", "PWD")),
    "cwd": os.getcwd(),
    "path": sys.path[1:],  # kfp puts the component's temporary folder first
    "temporary": tempfile.gettempdir(),
    "argv": sys.argv[1:2] + sys.argv[3:],
    "main": __main__.__name__ + __main__.__file__,
    "descriptors": [os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)],
    "cpus": sorted(os.sched_getaffinity(0)),
    "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "blocked": [str(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "unbuffered": sys.stdout.write_through,
}
print(json.dumps(facts))
"""


def test_looks_like_a_new_process_to_the_step(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fresh = Caller(None, tmp_path)
    env = {"ONE": "1", "PYTHONUNBUFFERED": "1"}
    forked, expected = json.loads(call.output(FACTS, **env)), json.loads(fresh.output(FACTS, **env))
    assert expected["cwd"] == str(tmp_path) and "ONE=1" in expected["env"]
    assert forked == expected


def test_has_a_session_of_its_own_and_no_other_descriptors(call):
    program = "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd')))"
    # The last one is that of the listed folder.
    assert call.output(program) == "True ['0', '1', '2', '3']"


def test_a_step_leaves_nothing_to_the_next(call):
    program = """
import os, sys, signal, threading, time, numpy, kfp
os.environ["LEAK"] = "1"
os.chdir("/")
os.umask(0o077)
sys.path.insert(0, "/leak")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
kfp.leak = numpy.leak = 1
numpy.random.seed(3)
threading.Thread(target=time.sleep, args=[0.1]).start()
"""
    look = """
import os, sys, signal, threading, numpy, kfp
print("LEAK" in os.environ, os.getcwd() == "/", os.umask(0) == 0o077, "/leak" in sys.path, hasattr(kfp, "leak"),
      hasattr(numpy, "leak"), signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, threading.active_count() > 1)
"""
    assert call(program) == 0
    assert call.output(look) == " ".join(["False"] * 8)


def test_steps_draw_different_random_numbers(call):
    program = "import random, uuid, numpy; print(random.random(), numpy.random.random(), uuid.uuid4())"
    first, second = call.output(program).split(), call.output(program).split()
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_steps_run_at_the_same_time(server, tmp_path):
    def run(number: int) -> str:
        folder = tmp_path / str(number)
        folder.mkdir()
        other = tmp_path / str(1 - number) / "here"
        program = f"""
import pathlib, time
pathlib.Path("{folder}/here").touch()
while not pathlib.Path("{other}").exists():
    time.sleep(0.01)
print("met {number}")
"""
        return Caller(server, folder).output(program)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == ["met 0", "met 1"]


def test_stop_kills_the_step_with_its_children(call, tmp_path):
    call.log.touch()
    program = f"import subprocess, os; print('pid', os.getpid(), flush=True); subprocess.run(['sleep', '{60 + 1}'])"
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(call(program)))
    thread.start()
    wait_for(lambda: "\npid " in call.log.read_text(), 20)
    group = int(call.log.read_text().rpartition("pid ")[2])
    call.processes.stop()
    thread.join(20)
    assert results == [-signal.SIGKILL]
    wait_for(lambda: not is_alive_group(group), 5)
    assert call("print('never')") == -signal.SIGKILL and "never" not in call.log.read_text()


def test_a_dead_server_fails_its_step_and_the_next_one_runs_in_a_new_process(tmp_path):
    server = ForkServer(dict(os.environ), LIGHT)
    assert server.wait()
    call = Caller(server, tmp_path)
    assert call("import os, signal; os.kill(os.getppid(), 9); signal.pause()") == 137
    assert call.output("import sys; print('numpy' in sys.modules)") == "False"
    assert not server.usable


def test_rejects_arguments_that_a_new_process_would_not_accept(call, server, tmp_path):
    for each in (call, Caller(None, tmp_path)):
        with pytest.raises(TidemillError, match="128 KiB") as error:
            each("#" * 131_072)
        assert error.value.code is Code.UNSUPPORTED


@pytest.mark.parametrize("problem", ["missing", "threads", "exit"])
def test_without_a_server_steps_run_in_new_processes(tmp_path, problem, monkeypatch):
    modules = {
        "missing": "import no_such_module",
        "threads": "import threading, time; threading.Thread(target=time.sleep, args=[9], daemon=True).start()",
        "exit": "import os; os._exit(0)",
    }
    (tmp_path / "preloaded.py").write_text(modules[problem])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ForkServer(dict(os.environ), ["preloaded"])
    assert not server.wait() and server.failed
    assert Caller(server, tmp_path).output("print('done')") == "done"


def test_all_runs_of_a_process_share_a_server_until_the_environment_changes(monkeypatch):
    monkeypatch.setattr(fork_server, "_server", None)
    monkeypatch.setattr(ForkServer.__init__, "__defaults__", (LIGHT,))
    env = {"PATH": "/bin", "TMPDIR": "/a", "TIDEMILL_RUN_PID": "1"}
    first = fork_server.shared(env)
    assert fork_server.shared({**env, "TMPDIR": "/b", "TIDEMILL_RUN_PID": "2"}) is first
    second = fork_server.shared({**env, "KERAS_BACKEND": "jax"})
    assert second is not first and not first.usable and second.usable
    second.kill()
    wait_for(lambda: not second.usable, 20)
    third = fork_server.shared({**env, "KERAS_BACKEND": "jax"})
    assert third is not second
    third.kill()


_DRIVER = """
import os, sys, pathlib
sys.path.insert(0, sys.argv[1])
from tests.local.test_fork_server import LIGHT, Caller
from tidemill.local.fork_server import ForkServer
server = ForkServer(dict(os.environ), LIGHT)
print(server.wait(), flush=True)
Caller(server, pathlib.Path(sys.argv[2]))("import os, signal; print('pid', os.getpid(), os.getppid()); signal.pause()")
"""


def test_nothing_outlives_a_killed_process(tmp_path):
    log = tmp_path / "step.log"
    log.touch()
    command = [sys.executable, "-c", _DRIVER, str(Path(__file__).parents[2]), str(tmp_path)]
    process = subprocess.Popen(command)
    wait_for(lambda: "\npid " in log.read_text(), 30)
    pids = log.read_text().rpartition("pid ")[2].split()
    assert all(Path("/proc", pid).exists() for pid in pids)
    process.kill()
    process.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in pids), 5)


def is_alive_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def is_alive(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_only_steps_that_import_tensorflow_need_the_server():
    assert needs_server({"numpy": "1", "tensorflow": "2"})
    assert not needs_server({"numpy": "1", "tensorflow": "2", "jax": "1"})
    assert not needs_server({"tensorflow-metadata": "1"})


_WORK = """
import duckdb, keras, lightgbm, numpy as np, polars as pl, pyarrow as pa, pyarrow.parquet as pq, sys, tensorflow as tf
rows = np.random.default_rng(1).random((2000, 4), np.float32)
np.linalg.inv(rows.T @ rows)
pq.write_table(pa.table({f"c{i}": rows[:, i] for i in range(4)}), "FILE")
((total,),) = duckdb.sql("SELECT sum(c0) FROM 'FILE'").fetchall()
assert abs(pl.scan_parquet("FILE").sum().collect()["c0"][0] - total) < 0.1
label = rows.sum(1) > 2
lightgbm.train({"verbose": -1}, lightgbm.Dataset(rows, label), 2)
data = tf.data.Dataset.from_tensor_slices((rows, label)).map(lambda x, y: (x, y), tf.data.AUTOTUNE).batch(500)
model = keras.Sequential([keras.layers.Dense(1, "sigmoid")])
model.compile("sgd", "binary_crossentropy")
model.fit(data.prefetch(2), verbose=0)
print("trained")
"""


@pytest.mark.tensorflow
def test_children_run_tensorflow_duckdb_polars_arrow_and_lightgbm(tmp_path):
    server = fork_server.shared(dict(os.environ))

    def run(number: int) -> str:
        folder = tmp_path / str(number)
        folder.mkdir()
        return Caller(server, folder).output(_WORK.replace("FILE", str(folder / "rows.parquet")))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == ["trained"] * 2
    loaded = Caller(server, tmp_path).output("import sys; print('tensorflow' in sys.modules)")
    assert loaded == "True"
