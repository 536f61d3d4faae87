"""The next prior: six 2D tables of each thing in place of a sketch by one network. Its trainer is not finished."""
