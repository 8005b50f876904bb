"""Drawings: the palette of organs, slices with outlines, plots, and pages that hold them."""
