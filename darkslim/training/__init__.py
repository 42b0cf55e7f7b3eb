"""Training as parts that can be swapped: loss, penalty, schedule, average, precision, checkpoints, and a
visible loop.

`loop.py` is the place to start reading; `train.py` at the top level puts the parts together.
"""
