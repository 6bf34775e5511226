"""The page checks on drawn pages with known distortions."""
