"""Publishing of models, and batch prediction with a published model."""
