"""The KFP components, one folder each: `component.py`, its compiled `component.yaml` and a README.

A component reads its parameters and paths, calls one function of the library and logs what the UI shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidemill.version import CPU_IMAGE, GPU_IMAGE

__all__ = ["CPU_IMAGE", "GPU_IMAGE", "component"]

_QUIET = (
    "\n"
    "import logging\n\n"
    "# kfp's executor logs the JSON of all inputs. Its warnings and errors stay.\n"
    "logging.getLogger().addFilter("
    'lambda record: record.levelno > logging.INFO or record.module != "executor_main")\n'
)


def component(base_image: str) -> Callable[[Callable[..., Any]], Any]:
    """Returns the decorator of a component: kfp's, without the inputs that kfp prints into the step's log.

    Args:
        base_image: The image, `CPU_IMAGE` or `GPU_IMAGE`.
    """
    from kfp import dsl

    def decorate(function: Callable[..., Any]) -> Any:
        made = dsl.component(function, base_image=base_image, install_kfp_package=False)
        command = made.component_spec.implementation.container.command
        command[-1] = _QUIET + command[-1]
        return made

    return decorate
