"""Metrics, confidence intervals, gates and the report."""
