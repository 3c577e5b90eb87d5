"""TensorFlow Transform without Beam: the engines, the artifact, and `analyze` for use on its own.

`import tidemill.transform` is light: TensorFlow is imported when `analyze` or `Transform` is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.transform.standalone import Transform, analyze

__all__ = ["Transform", "analyze"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tidemill.transform import standalone

    return getattr(standalone, name)
