"""What TensorFlow Transform asks for: the trace of a preprocessing_fn and the artifact of its results."""
