"""Placement, routing and replay: which source holds which segment, who serves whom, and what it was worth."""
