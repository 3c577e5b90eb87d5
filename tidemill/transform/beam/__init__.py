"""TensorFlow Transform on Apache Beam, in this process or on Dataflow, Flink and Spark."""
