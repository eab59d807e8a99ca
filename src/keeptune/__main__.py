"""`python -m keeptune`, for launchers."""

from keeptune.cli import main

main()
