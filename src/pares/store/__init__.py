"""What the node remembers: one sqlite file, typed rows, and the stream of events."""
