"""How one generation answers what another is asked: figures that add up, and a verdict on them."""
