"""Pipelines that other pipelines contain. `tidemill run --pipeline` does not offer them."""
