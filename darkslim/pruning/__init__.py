"""Pruning: importance -> plan -> constants and carriers -> surgery -> verify.

importance.py scores channel classes, plan.py decides which stay, constants.py follows what cut channels leave
behind, carriers.py makes that exact along padded borders, surgery.py builds the compact network, verify.py
proves it in memory and again from the disk.
"""
