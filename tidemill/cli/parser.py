"""The commands of the command line, with their options. A command's module is imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import tidemill
from tidemill.local.definitions import pipeline_names

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_DEFAULT_ROOT = ".tidemill"


def read_command(argv: Sequence[str] | None = None) -> Callable[[], int]:
    """Reads the arguments and imports the module of their command.

    Args:
        argv: The arguments. Defaults to those of the process.

    Returns:
        The command with its arguments; it returns the exit code.
    """
    args = build_parser().parse_args(argv)
    module, _, function = args.command.partition(":")
    command = getattr(importlib.import_module(f"tidemill.cli.{module}"), function)
    return lambda: command(args)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="tidemill",
        description="Reusable Kubeflow pipelines for tabular and click-through-rate models.",
        epilog="A mistake in the input ends with `error [code] …` and exit code 2.",
    )
    parser.add_argument("--version", action="version", version=f"tidemill {tidemill.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_validate(commands)
    _add_schema(commands)
    _add_run(commands)
    _add_report(commands)
    _add_runs(commands)
    _add_explain(commands)
    _add_compile(commands)
    return parser


def _add(commands: _Commands, name: str, command: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    return parser


def _add_validate(commands: _Commands) -> None:
    parser = _add(commands, "validate", "validate_command:validate", "Check an experiment file and its local files.")
    parser.add_argument("file", metavar="FILE", help="the experiment file")
    parser.add_argument(
        "--resolved",
        action="store_true",
        help="print the experiment as one JSON text with SQL and transform module inline, as a pipeline takes it",
    )
    parser.add_argument(
        "--data",
        action="store_true",
        help="read the tables, bind the query without running it, check and print the columns with their types",
    )


def _add_schema(commands: _Commands) -> None:
    parser = _add(
        commands, "schema", "validate_command:schema", "Print the JSON Schema of the experiment file, for editors."
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write it to a file instead")


def _add_run(commands: _Commands) -> None:
    parser = _add(commands, "run", "run_command:run", "Run a pipeline on this machine.")
    parser.add_argument("file", metavar="FILE", help="the experiment file")
    names = ", ".join(pipeline_names())
    parser.add_argument("--pipeline", metavar="NAME", default="train", help=f"one of {names}; defaults to train")
    _add_root(parser)
    parser.add_argument(
        "--param",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a parameter of the pipeline; repeat the option for several",
    )
    parser.add_argument(
        "--runner",
        choices=["subprocess", "docker"],
        default="subprocess",
        help="run each step in a process with the installed packages (the default), or in a container of its image",
    )
    _add_images(parser)
    parser.add_argument("--no-cache", action="store_true", help="run every step again")
    parser.add_argument("--plain", action="store_true", help="print one line per event, as without a terminal")


def _add_report(commands: _Commands) -> None:
    parser = _add(commands, "report", "runs_command:report", "Print the paths of a run's HTML reports.")
    parser.add_argument("run", metavar="RUN", nargs="?", help="a run's id or its start; defaults to the newest run")
    parser.add_argument("--open", action="store_true", help="open them in the browser")
    _add_root(parser)


def _add_runs(commands: _Commands) -> None:
    parser = commands.add_parser("runs", help="List runs, or show one.", description="List runs, or show one.")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = _add(actions, "list", "runs_command:list_all", "List the runs, the newest first.")
    _add_root(listing)
    showing = _add(actions, "show", "runs_command:show", "Show a run's steps, logs, outputs and error.")
    showing.add_argument("run", metavar="RUN", nargs="?", help="a run's id or its start; defaults to the newest run")
    showing.add_argument("--json", action="store_true", help="print the whole record")
    _add_root(showing)


def _add_explain(commands: _Commands) -> None:
    text = "Show what decides whether a step runs again, and what changed since the run before."
    parser = _add(commands, "explain", "explain:explain", text)
    parser.add_argument("step", metavar="STEP", help="a step's name, or its task's, such as train")
    parser.add_argument("--run", metavar="RUN", help="a run's id or its start; defaults to the newest run")
    parser.add_argument("--files", action="store_true", help="list the modules and templates that the step can reach")
    _add_root(parser)


def _add_compile(commands: _Commands) -> None:
    text = "Compile the components and pipelines to YAML, and write the generated tables of READMEs and pages of docs/."
    parser = _add(commands, "compile", "compile_command:compile_all", text)
    parser.add_argument("names", metavar="NAME", nargs="*", help="components or pipelines; defaults to all, and docs/")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 and name what is not current")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write only the YAMLs, to DIR/components and DIR/pipelines, with what the options below name",
    )
    _add_images(parser)
    _add_pods(parser)


def _add_images(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("images", "Without these options: the images of this version, without registry.")
    group.add_argument("--images", metavar="REGISTRY", help="registry and folder of the images")
    group.add_argument("--tag", metavar="TAG", help="tag of the images; defaults to this version")
    group.add_argument(
        "--digest",
        metavar="IMAGE=DIGEST",
        action="append",
        default=[],
        help="cpu=sha256:… or gpu=sha256:…; defaults to those of images that this machine pushed or pulled",
    )
    group.add_argument("--cpu-only", action="store_true", help="run all steps in the CPU image, and ask for no GPU")


def _add_pods(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pods", "What Kubeflow fixes when a pipeline is compiled.")
    group.add_argument("--queue", metavar="NAME", help="Kueue's local queue, in which training steps wait for quota")
    group.add_argument("--priority", metavar="NAME", help="Kueue's workload priority class of training steps")
    group.add_argument(
        "--timeout",
        metavar="COMPONENT=TIME",
        action="append",
        default=[],
        help="time after which an attempt of a step is ended, such as train=6h or ingest=90m",
    )


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root",
        metavar="DIR",
        default=_DEFAULT_ROOT,
        help=f"folder of artifacts, runs and published models; defaults to {_DEFAULT_ROOT}",
    )
