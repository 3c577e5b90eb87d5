"""The component `predict`."""
