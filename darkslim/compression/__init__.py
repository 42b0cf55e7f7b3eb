"""Smaller files: which weights go, which share a value, what that comes to in bytes. The file itself is a
format of `network/` (packed.py), since whatever loads a network reads it.
"""
