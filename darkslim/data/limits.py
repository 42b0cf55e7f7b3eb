"""What a picture may be: its size and its suffixes, in a file that loads neither Pillow nor torch."""

MAX_PIXELS = 89_478_485  # of one picture, unless more is asked for: Pillow's own limit, 256 MiB of RGB

# of the formats that training reads, in small letters
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")
SUFFIXES += (".pgm",)
