"""The experiment file, which describes data, features, models and gates.

`load` reads a file, `parse` reads a text, `dump` writes the text that pipelines take as a parameter, and `json_schema`
returns the JSON Schema.
"""

from tidemill.experiment.experiment import Experiment, json_schema
from tidemill.experiment.reading import dump, load, parse

__all__ = ["Experiment", "dump", "json_schema", "load", "parse"]
