"""What a run rests on: paths, checkpoints, devices, stop requests, progress."""
