"""What is shown. Only pipelines and commands use it.

tables            tables for the terminal
epoch_table       the table that grows while a network trains
cut_text          a cut as text
slim_report       a slim run: a line a step, the table, the picture
sweep_report      a sweep of ratios: table, CSV, picture, which one to take
layers_report     every layer cut alone: table, CSV, picture
network_picture/  the picture of a network before and after a cut
gammas            how the gammas moved
pr_curve          precision over recall
examples          a sheet of pictures with detections
figures           what pictures share
tensorboard       events
envelope          what stands around every result: command, inputs, versions
machine           the machine that a figure was measured on
"""
