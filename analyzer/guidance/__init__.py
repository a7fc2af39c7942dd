"""What a scan says of a merge: which keys to take from B, and how much of them."""
