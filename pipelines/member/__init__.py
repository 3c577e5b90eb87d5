"""The pipeline `member`."""
