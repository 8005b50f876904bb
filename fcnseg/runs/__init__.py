"""Runs: the folder that a training leaves, its manifest, and what a trained model says of itself."""
