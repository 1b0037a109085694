"""`python -m pgenrm_agent.cli`: the command without its script, as launchers such as torchrun need it."""

from pgenrm_agent.cli.app import main

main()
