"""The prior that ships inside the package: its data, network, training, and weights."""
