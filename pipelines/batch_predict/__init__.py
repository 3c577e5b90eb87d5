"""The pipeline `batch_predict`."""
