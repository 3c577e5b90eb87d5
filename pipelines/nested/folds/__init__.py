"""The nested pipeline `folds`."""
