"""The nested pipeline `written_predictions`."""
