"""Evaluation: detections, matching, AP as the reference computes it, COCO AP through a library."""

from .ap import ClassScore, average_precision, class_scores
from .coco_ap import coco_ap
from .matching import match
from .postprocess import darknet_boxes, detections
from .scoring import Result, evaluate, score

__all__ = [
    "ClassScore",
    "Result",
    "average_precision",
    "class_scores",
    "coco_ap",
    "darknet_boxes",
    "detections",
    "evaluate",
    "match",
    "score",
]
