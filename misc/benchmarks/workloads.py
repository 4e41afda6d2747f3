"""All workloads, in the order of the table."""

from misc.benchmarks import metrics

WORKLOADS = (*metrics.WORKLOADS,)
