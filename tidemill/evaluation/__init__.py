"""Evaluation of a model: metrics, confidence intervals, slices and gates."""
