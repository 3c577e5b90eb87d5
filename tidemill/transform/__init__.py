"""TensorFlow Transform: what to compute, the engines that compute it, and the artifact."""
