"""Load tests of Triton: what a server takes within its SLO, how to make it take more, and how others do beside it.

The command is ``tritonkit-load``, in :mod:`.cli`; its verbs are the modules beside that. ``load`` sends,
``tokens`` does so for language models, ``tuning`` searches, ``reporting`` writes pages, and ``benchmarks`` measures the
product itself.
"""
