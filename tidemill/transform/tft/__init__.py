"""The interface to TensorFlow Transform: the trace of a preprocessing_fn, and the artifact of its results."""
