"""What a GPU does in process and served, for `make bench-gpu`; the verb itself is bench_gpu.py.

models     which models, their repositories, and what is sent to them
device     the GPUs' names and memory, as the driver has them
rounds     medians and spreads of interleaved rounds
inprocess  onnxruntime as it comes, and prepared sizes, in one process
served     the real Triton under load, beside the same graph in this process
callers    processes that send requests as fast as they are answered
"""
