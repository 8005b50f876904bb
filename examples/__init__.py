"""One short script for each step of the line, and the demo that walks the whole of it."""

# What makes a training of the preset `demo` take seconds: enough to see the steps, not to learn.
SHORT = {
    "model.filters": [8, 16],
    "model.deep_supervision": 0,
    "patches.size": [24, 32, 32],
    "training.epochs": 2,
    "training.steps_per_epoch": 10,
    "inference.overlap": [4, 4, 4],
}
