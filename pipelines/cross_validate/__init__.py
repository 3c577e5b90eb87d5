"""The pipeline `cross_validate`."""
