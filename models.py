"""The public face of the networks: `from models import load_model, Darknet, ...`.

Nothing is defined here. Look in
    darkslim/cfg.py      read_cfg, write_cfg: cfg text <-> Cfg
    darkslim/darknet.py  Darknet: the network
    darkslim/weights.py  load_model, load_weights, save_weights: .weights and .pth
"""

from darkslim.cfg import read_cfg, write_cfg
from darkslim.darknet import Darknet
from darkslim.weights import load_model, load_weights, save_weights

__all__ = ["Darknet", "load_model", "load_weights", "read_cfg", "save_weights", "write_cfg"]
