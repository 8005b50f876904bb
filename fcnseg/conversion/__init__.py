"""Scans and label files to training records, as Apache Beam transforms.

Without TensorFlow: a worker needs no more than the extra `pipelines`. What reads and checks a case
(`gate`, `labels`, `checks`, `rejects`) needs no Beam either, as every command that reads a scan
uses it.
"""
