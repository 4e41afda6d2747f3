"""All workloads, in the order of the table."""

from misc.benchmarks import evaluation, metrics

WORKLOADS = (*metrics.WORKLOADS, *evaluation.WORKLOADS)
