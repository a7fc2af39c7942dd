"""From the options of a merge to one action and one reason for every key."""
