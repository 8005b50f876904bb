"""Scans and label files to training records, as Apache Beam transforms.

Without TensorFlow: a worker needs only the extra `pipelines`. The modules that read and check a
case (`gate`, `labels`, `checks`, `rejects`) do not need Beam either, as every command that reads a
scan uses them.
"""
