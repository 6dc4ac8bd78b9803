"""A budget said in accuracy: the cheapest network that keeps it, found by trying, proved on images kept for that."""
