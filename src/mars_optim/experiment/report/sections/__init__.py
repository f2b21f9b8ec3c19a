"""The report's sections: each file holds a section's, or a figure's, text, picture and numbers."""
