"""One short script for each step of the line, and the demo that walks the whole of it."""
