"""What Beam's `--setup_file` needs; the metadata is in setup.cfg."""

from setuptools import setup

setup()
