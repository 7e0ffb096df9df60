"""What peers say to each other: messages, frames, signatures. Pure."""
