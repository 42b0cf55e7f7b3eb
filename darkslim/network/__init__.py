"""The network that a cfg describes, in the order in which one file builds on another.

schema       the one table of sections and keys: kind, default, bounds
cfg          Darknet cfg text <-> Cfg, without loss
graph        absolute inputs, shapes, strides, consumers
channels     channel classes by union-find over positions (these four without torch)
layers       section type -> module, one row a type
heads        what a detection head is, and the one decode
darknet      the network: forward only
rounding     what 8 bits do to kernels and feature maps
profile      parameters, MACs, activation bytes from the text alone; latency
arrays       the arrays of a network in the order of a .weights file
checkpoints  .pth: state, cfg and its hash; nothing in a file is executed
weights      .weights, every byte accounted for; load_model
"""
