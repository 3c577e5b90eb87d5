"""Hands a list to `dsl.ParallelFor`."""

from kfp import dsl
from tidemill.components import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def fan_out(items: str) -> list:
    """Turns a JSON list into the one unnamed output that `dsl.ParallelFor` can loop over.

    Args:
        items: A JSON list, such as the `members` of `plan_training`.
    """
    import json

    return json.loads(items)
