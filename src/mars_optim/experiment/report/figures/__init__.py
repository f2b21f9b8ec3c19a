"""Tools that the sections draw with: matplotlib's figures as SVG, colours, files."""
