"""`python -m genlab` is `genlab`."""

from genlab.cli import main

main()
