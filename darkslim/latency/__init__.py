"""Latency of whole networks, and of layers: a table that was measured on this machine by layer shape, so that
widths can be judged without building networks.

    dense, small = time_networks([model, compact])   # each with its spread
    table = LatencyTable(progress=commands.progress)
    table.measure(graph)        # once a machine; every narrower version of the network is then known
    table.save()
    table.seconds(narrower)     # a Graph is enough

A network's latency is the sum over its layers, each looked up by its widths, as in HALP (Shen et al. 2022,
arXiv 2110.10811).

What to expect: with yolov3, yolov3-tiny and a nano network on a 2-core EPYC at one thread and little else
running, the ratio of the pruned network's latency to the dense one's came out within 7% of the measured ratio
where 30 or 60% of the channels were cut, and within 12% at 85% (of the ratio itself). The sum knows nothing
of what neighbours do to each other's caches. Judge by it, then measure the network that was chosen. As many
threads as cores on a machine that is doing something else give times that mean nothing, here as in any
measurement: if `seconds` of the dense network is far from its measured latency, `measure` it again when the
machine is quiet.
"""

from .networks import Timing, time_networks
from .table import LatencyTable
from .table_file import default_path

__all__ = ["LatencyTable", "Timing", "default_path", "time_networks"]
