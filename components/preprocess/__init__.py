"""The component `preprocess`."""
