"""From annotated pictures to batches.

listing   list files and where the label of an image lies
labels    one label file, checked row by row
images    one picture: opened safely, converted, placed on the network input
cache     what is known to be good from the last check
check     the whole data set, before the first epoch
augment   Darknet's jitter, flip and HSV distortion
dataset   ListDataset: pictures and boxes as the network wants them
loader    seeded batches for workers and ranks
anchors   k-means on 1 - IoU
convert   what all converters share; oxford, voc and coco read the formats
download  the official archive: resumed, verified, safely unpacked
hands     procedural pictures of hands in the Oxford layout
"""
