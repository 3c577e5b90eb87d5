"""The rows of an analysis: how they are read, and how they become tensors."""
