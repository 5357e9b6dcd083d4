"""``brainy demo``: a Brainy bucket served and upgraded under load, with a node killed on the way."""
