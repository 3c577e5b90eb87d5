"""The component `fan_out`: parses a list for `dsl.ParallelFor`."""

from tidemill.components import CPU_IMAGE, component


@component(CPU_IMAGE)
def fan_out(items: str) -> list:
    """Parses a JSON list and returns it as the unnamed output, the only one that `dsl.ParallelFor` can loop over.

    Args:
        items: JSON list, such as the output `members` of `plan_training`.
    """
    import json

    return json.loads(items)
