"""Speed measured side by side: every figure is a ratio against a named peer from one interleaved run.

`python -m experiments bench step|loop|small|large|start|many|profile|kernels|numerics|attribution` measures
and writes `results/bench/<device>.json`; `python -m experiments bench table` puts what is there into the documents.
"""
