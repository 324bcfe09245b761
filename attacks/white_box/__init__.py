"""What attackers do that have the edge half: descent through it, matching of tokens, priors on images."""
