"""How the site is built: `make docs`, which needs no network and takes a warning for an error."""

from __future__ import annotations

import sys
from pathlib import Path

import gossamer

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "gossamer"
author = "The gossamer developers"
project_copyright = "The gossamer developers, Apache-2.0"
version = release = gossamer.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mended", "reference"]
exclude_patterns: list[str] = ["_ext"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are kept with what they put out, which a test checks
nitpicky = False
suppress_warnings = ["config.cache"]

autodoc_typehints = "signature"
napoleon_use_ivar = True
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
default_role = "code"  # docstrings write names in single backticks
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False

html_theme = "furo"
html_title = "gossamer"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
