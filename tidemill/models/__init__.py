"""Model families: one module for each, discovered automatically.

Each module of this package defines `FAMILY`, a subclass of `Family` whose field `family` is the module's name.
"""

from tidemill.models.core.family import Deep, Family, Network
from tidemill.models.core.registry import families, load_model, new_model, parse_config, read_model

__all__ = ["Deep", "Family", "Network", "families", "load_model", "new_model", "parse_config", "read_model"]
