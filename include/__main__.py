"""`python -m include ...` is `evergreen ...`."""

from include.cli.app import main

main()
