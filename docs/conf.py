"""Sphinx configuration: pages are MyST notebooks in text form, and every one is executed at each build."""

from importlib.metadata import version as installed

project = "sdeflow"
author = "the sdeflow developers"
copyright = "2026, the sdeflow developers"
version = release = installed("sdeflow")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"sdeflow {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# A page whose code fails fails the build: an example that no longer runs is never published.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"

autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "precise_time"}
autodoc_type_aliases = {"Field": "Field", "Time": "Time"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
