"""Tidemill: a Kubeflow Pipelines component library for tabular and click-through-rate models."""

__version__ = "0.1.0"
