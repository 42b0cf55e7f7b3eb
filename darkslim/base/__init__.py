"""What every room stands on. No torch but in `boxes` and `devices`.

errors    one exception a kind of file: place, found, expected, remedy, as one line
files     reading bytes that may be hostile; writing a group of files whole or not at all
options   settings: frozen dataclasses whose fields know how they are read and what they may be
records   results as strict JSON
signals   SIGINT and SIGTERM: the first asks for an orderly end
observer  what a job tells whoever watches
devices   the device that work is done on, and the seed
boxes     box formats, the IoU family, NMS
"""
