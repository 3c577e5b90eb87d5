"""The store of published models, and batch prediction with one of them."""
