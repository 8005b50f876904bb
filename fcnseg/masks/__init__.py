"""Masks of cases on disk: their files, organ volumes and label tables, without TensorFlow."""
