"""Take one category at a time from B, look at what it does, and measure it: the experiment as a command."""
