"""Metrics: how an output is scored. `metric:` of a task names one, and `metric.py` says what every one of them does."""

from .metric import Answer, Example, Metric
from .registry import METRICS, AnyMetric, read_metric

__all__ = ["METRICS", "Answer", "AnyMetric", "Example", "Metric", "read_metric"]
