"""What a model needs, and on which GPU it is to run: cost from the graph, latency, replicas, price, and why.

Graphs are read by :mod:`~tritonkit.advisor.graph_cost`; their time is predicted by :mod:`~tritonkit.advisor.latency`
with the coefficients that :mod:`~tritonkit.advisor.validation` fits and checks; :mod:`~tritonkit.advisor.advise` ranks.
"""
