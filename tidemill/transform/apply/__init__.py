"""Applies a transform graph: computes outputs per distinct value where the graph's structure proves that it may."""
