"""The public face of the networks: `from models import load_model, Darknet, ...`.

Nothing is defined here. Look in
    darkslim/network/cfg.py      read_cfg, write_cfg: cfg text <-> Cfg
    darkslim/network/darknet.py  Darknet: the network
    darkslim/network/weights.py  load_model, load_weights, save_weights: .weights and .pth
"""

from darkslim.network.cfg import read_cfg, write_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.weights import load_model, load_weights, save_weights

__all__ = ["Darknet", "load_model", "load_weights", "read_cfg", "save_weights", "write_cfg"]
