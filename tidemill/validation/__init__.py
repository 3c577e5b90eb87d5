"""Validation of examples: statistics, schema, anomalies, drift and leakage."""
