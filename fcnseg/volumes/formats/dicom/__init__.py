"""DICOM: series and multi-frame objects as volumes, segmentation objects as labels."""
