"""Artifacts on disk: one module for each kind, which owns its file names and its JSON."""
