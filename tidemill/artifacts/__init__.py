"""Artifacts on disk. Each module owns the file names and the JSON of one artifact."""
