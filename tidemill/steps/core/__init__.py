"""Shared parts of the steps: the base of their specs, the planning contexts and the fingerprint of their code."""
