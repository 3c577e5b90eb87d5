"""The `train` step: fits one model to transformed examples and exports it for serving."""
