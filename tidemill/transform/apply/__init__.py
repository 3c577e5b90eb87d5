"""What a transform graph computes row by row, proven from its structure, and the transform that uses it."""
