"""The application of a transform graph: an output that provably depends on one column is computed once per distinct
value."""
