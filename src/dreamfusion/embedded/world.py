"""The world of the embedded prior: its colours, and the cameras from which it saw its objects."""

COLOURS = {
    "red": (0.80, 0.12, 0.10), "orange": (0.93, 0.50, 0.10), "yellow": (0.95, 0.82, 0.15), "green": (0.20, 0.60, 0.22),
    "blue": (0.15, 0.33, 0.80), "purple": (0.50, 0.22, 0.68), "pink": (0.95, 0.55, 0.70), "brown": (0.42, 0.26, 0.13),
    "black": (0.10, 0.10, 0.11), "white": (0.92, 0.92, 0.92), "gray": (0.52, 0.52, 0.53),
}  # fmt: skip
SIZE = 64
DISTANCE, FOV_DEG, ELEVATION_DEG = 3.0, 40.0, (-10.0, 75.0)
