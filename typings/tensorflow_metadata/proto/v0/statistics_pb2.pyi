"""Generated at run time: the attributes are unknown to type checkers."""

from typing import Any

def __getattr__(name: str) -> Any: ...
