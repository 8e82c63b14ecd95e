"""One module for each web framework; each is a thin layer over the manager."""
