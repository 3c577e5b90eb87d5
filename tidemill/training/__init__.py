"""Training one model on transformed examples, and exporting it for serving."""
