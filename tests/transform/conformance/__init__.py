"""Conformance of the local engine with Beam: the same preprocessing_fns on the same rows."""
