"""The steps of the pipelines. Each module holds one step's spec."""
