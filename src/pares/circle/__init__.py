"""Groups of peers who agreed to help each other: who belongs, where they are, how they find each other."""
