"""`python -m octavo.cli`: the command where there is no script to call."""

from octavo.cli.entry import main

main()
