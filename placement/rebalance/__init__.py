"""What happens to a plan when the world changes: events in, the next plan and what it moves out."""
