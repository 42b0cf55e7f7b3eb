"""The picture of a network, every layer before and after a cut.

picture   drawing; start here
layout    where everything goes
routing   the lines between layers that are not neighbours
"""
