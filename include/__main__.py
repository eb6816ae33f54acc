"""`python -m include ...` is `evergreen ...`."""

from include.cli import main

main()
