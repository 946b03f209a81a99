"""What the machine has and what a training run costs on it: GPUs, processes, memory, FLOPs."""
