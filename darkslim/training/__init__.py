"""Training as parts that can be swapped, and a visible loop. Start with `loop`; pipelines/train.py puts the
parts together.

loop           the loop: Run (the parts), train_step, train
progress       where a run stands
objective      what is minimised: named terms that add up
loss           Darknet's detection loss and the IoU losses, without a loop over boxes
penalties      constraints: what acts on the weights beside the loss, once a step that is taken
pressure       when and where a penalty presses
quantization_aware  a constraint in the forward pass: kernels and maps in 8 bits
prunable       the gammas that a penalty presses
optim          Darknet's optimizer and learning rate
precision      reduced precision, and the scale of the loss
ema            a running average of the weights
checkpointer   what a run leaves on disk, and the lock
start          where a run starts from, and where its results go
batches        from what the loader gives to what a forward pass takes
distributed    several processes under torchrun
memory         freed memory kept for the next step
faults         faults of the machine, told in one line
"""
