"""Statistics, schema, anomalies, drift and leakage of examples."""
