"""Ingest: reads the source's tables, runs the query and writes examples."""
