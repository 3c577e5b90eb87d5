"""The component `fan_out`: parses a list for `dsl.ParallelFor`."""

from kfp import dsl
from tidemill.components import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def fan_out(items: str) -> list:
    """Parses a JSON list and returns it as the unnamed output, the only one that `dsl.ParallelFor` can loop over.

    Args:
        items: JSON list, such as the output `members` of `plan_training`.
    """
    import json

    return json.loads(items)
