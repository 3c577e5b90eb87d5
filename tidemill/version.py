"""The version of Tidemill."""

__version__ = "0.1.0"
