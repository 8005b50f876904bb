"""File formats of volumes: NIfTI, NRRD, MetaImage and DICOM."""
