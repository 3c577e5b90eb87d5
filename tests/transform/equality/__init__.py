"""The local engine against Beam's DirectRunner: the same preprocessing_fns on the same rows."""
