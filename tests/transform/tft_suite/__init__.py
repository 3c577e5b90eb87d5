"""TensorFlow Transform's own tests from the installed package, run on the local engine."""
