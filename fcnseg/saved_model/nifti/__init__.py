"""NIfTI in the graph of a served model: from the bytes of an image to those of its mask.

The rules are those of `fcnseg.volumes.formats.nifti` and of the checks that `fcnseg predict` makes.
"""
