"""Bounds of what is read of a data set, in a file that loads neither Pillow nor torch."""

MAX_PIXELS = 89_478_485  # of one picture, unless more is asked for: Pillow's own limit, 256 MiB of RGB
