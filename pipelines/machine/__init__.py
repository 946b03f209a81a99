"""What the machine has and what a training costs on it: GPUs, processes, memory, FLOPs."""
