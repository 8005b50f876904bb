"""Runs: the folder that a training leaves, its manifest, and the facts of a trained model."""
