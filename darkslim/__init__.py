"""Slimming of Darknet detectors: read a cfg, train it sparse, cut it exactly, write a smaller ordinary cfg.

The package is built in floors (see docs/DESIGN.md): a file imports only from lower floors or from its
own folder, and never from the commands at the top level.
"""
