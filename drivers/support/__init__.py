"""What the drivers are made of; none of these is a driver itself."""
