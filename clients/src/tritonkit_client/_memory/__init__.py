"""Memory that a client shares with servers on its machine: segments in ``/dev/shm`` and on GPUs."""
