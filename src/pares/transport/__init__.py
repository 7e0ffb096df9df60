"""How bytes get from peer to peer."""
