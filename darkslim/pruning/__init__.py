"""Pruning: blocks; importance -> policy -> rules and budget -> plan; constants and carriers -> widths and
surgery -> verify.

blocks.py removes whole residual blocks. importance.py scores channels, policy.py makes class scores of them,
rules.py and budget.py say how many may go, plan.py decides. constants.py follows what cut channels leave
behind, carriers.py makes that exact along padded borders, widths.py writes the compact cfg, surgery.py builds
the compact network, verify.py proves it in memory and again from the disk; cut.py does all of it in one call.
recalibrate.py and fuse.py change what is written, sweep.py tries many ratios, layer_losses.py cuts every
layer alone, advice.py says what a user should know.
"""
