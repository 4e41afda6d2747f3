"""All workloads, in the order of the table."""

from misc.benchmarks import evaluation, feature_store, imports, metrics, training_step

WORKLOADS = (
    *training_step.WORKLOADS,
    *metrics.WORKLOADS,
    *evaluation.WORKLOADS,
    *feature_store.WORKLOADS,
    *imports.WORKLOADS,
)
