"""The experiment file: the one thing that a user writes.

`load` reads a file (and inlines the files that it names), `parse` reads a text, `dump` writes one for a pipeline's
parameter, `json_schema` describes them all.
"""

from tidemill.experiment.experiment import Experiment, json_schema
from tidemill.experiment.reading import dump, load, parse

__all__ = ["Experiment", "dump", "json_schema", "load", "parse"]
