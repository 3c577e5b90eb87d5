"""The pipeline `folds`."""
