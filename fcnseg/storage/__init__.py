"""Files: written under their name when complete only, and read with mistakes named."""
