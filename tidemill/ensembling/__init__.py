"""Ensembles: one model made of the models of folds and members."""
