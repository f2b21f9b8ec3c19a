"""What the sections draw with: matplotlib's figures as SVG, their colours, their files."""
