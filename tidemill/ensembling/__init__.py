"""Ensembles: one model of the models that folds and members gave."""
