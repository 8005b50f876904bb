"""Configuration of the site: `make docs` builds it into build/docs."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import fcnseg

project = "fcnseg"
release = fcnseg.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "fcnseg"
exclude_patterns = ["images"]

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"  # `name` in docstrings

myst_heading_anchors = 3
# Links to files of the repository that are no pages; tests/test_docs.py holds all links.
suppress_warnings = ["myst.xref_missing"]
