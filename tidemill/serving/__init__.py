"""Exported models: writing them, checking them against training, and scoring with them."""
