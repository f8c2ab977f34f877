"""Demand: how many requests, per content, location and window."""
