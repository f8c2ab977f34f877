"""Churn: the probability that a node is gone by each edge of a horizon."""
