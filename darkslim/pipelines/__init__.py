"""Whole jobs as functions of frozen settings: no parsing, no printing, no exit codes.

    from darkslim.pipelines import TrainSettings, train
    result = train(TrainSettings(model_def="net.cfg", data_config="mine.data", epochs=30))

A result is a dict of plain values, what the command writes with --json.

settings       what jobs share; TrainSettings, EvaluateSettings. cut_settings: PruneSettings; slim_settings
train          a network from its cfg, dense or sparse
evaluate       the score of a network on a list of pictures
prune          a cut: plan, surgery, proof, files
prune_sweep    many ratios: a table and a picture
prune_layers   every layer cut alone, and the bounds that follow
prune_latency  the plan that meets a time, by a table of layer times
export         the network in another program's format
detect         objects in pictures, drawn and written
sparsify       many weights at 0, with or without training
pack           a network into one small file, and back
constrained    a training under masks, surgery or shared values, within these two
score          the mAP of one network after another
slim           all of it in steps, resumable, to a target
slim_run       the story of such a run
slim_stages    what a stage of it does
slim_folder    its folder: whose it is, what is done
recipes        settings of slim in short files
choosing       the pictures that choose, which are not those that judge

What a job tells whoever watches: darkslim/base/observer.py.

Jobs can run one after another in one process, each with the same result as alone.
"""

from ..base.observer import Observer
from .compress_settings import PackedSettings, PackSettings, SparsifySettings, SurgerySettings
from .cut_settings import PruneSettings
from .detect import DetectSettings, detect
from .evaluate import evaluate
from .export import ExportSettings, export
from .pack import info, pack, unpack
from .prune import prune
from .settings import EvaluateSettings, TrainSettings
from .slim import slim
from .slim_settings import SlimSettings
from .sparsify import sparsify, surgery
from .train import train

__all__ = [
    "DetectSettings",
    "EvaluateSettings",
    "ExportSettings",
    "Observer",
    "PackSettings",
    "PackedSettings",
    "PruneSettings",
    "SlimSettings",
    "SparsifySettings",
    "SurgerySettings",
    "TrainSettings",
    "detect",
    "evaluate",
    "export",
    "info",
    "pack",
    "prune",
    "slim",
    "sparsify",
    "surgery",
    "train",
    "unpack",
]
