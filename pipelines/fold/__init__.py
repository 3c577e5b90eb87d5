"""The pipeline `fold`."""
