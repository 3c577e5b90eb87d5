"""What families are made of: models by Keras and LightGBM, layers, sizes of embeddings."""
