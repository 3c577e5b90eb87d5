"""The building blocks of model families: configs, inputs, layers, and models on Keras and LightGBM."""
