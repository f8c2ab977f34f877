"""Next content: what a session asks for next, given where it is."""
