"""TensorFlow Transform's own tests of the installed package, run on the local engine."""
