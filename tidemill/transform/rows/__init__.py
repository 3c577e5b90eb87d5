"""RowSource for an analysis: what is read, in which units, and how it becomes tensors."""
