"""The nested pipeline `published_model`."""
