"""Markov counters, the networks that correct them, and what measures both: data in, data out."""
