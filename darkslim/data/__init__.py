"""From annotated pictures to batches.

datafile     .data and .names files
listing      list files and where the label of an image lies
labels       one label file, checked row by row
images       one picture: opened safely, converted, placed on the network input
check_cache  what is known to be good from the last check
check        the whole data set, before the first epoch
augment      Darknet's jitter, flip and HSV distortion
dataset      ListDataset: pictures and boxes as the network wants them
loader       seeded batches for workers and ranks
anchors      k-means on 1 - IoU
convert      what all converters share; oxford, voc and coco_json read the formats
download     the official archive: resumed, verified, safely unpacked
hands/       procedural pictures of hands in the Oxford layout
"""
