"""The experiment file, which describes data, features, models and gates.

`load` reads a file, `parse` reads a parameter of a pipeline, `dump` writes the text that pipelines take as a parameter,
`as_parameter` turns a long text into a URI, and `json_schema` returns the JSON Schema.
"""

from tidemill.experiment.experiment import Experiment, json_schema
from tidemill.experiment.parameter_text import as_parameter
from tidemill.experiment.reading import dump, load, parse

__all__ = ["Experiment", "as_parameter", "dump", "json_schema", "load", "parse"]
