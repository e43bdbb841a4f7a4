"""Settings of Sphinx for the site."""

project = "LayerFusion"
extensions = ["myst_parser"]
html_theme = "furo"  # dark, on a phone and without a network as well
html_title = "LayerFusion"
html_show_copyright = False
html_show_sourcelink = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # links to headings, named as the repository's pages name them
