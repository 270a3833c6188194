"""How a network learns: objectives, the loop, optimizers, checkpoints."""
