"""`python -m pares` is `pares`."""

from pares.cli import main

main()
