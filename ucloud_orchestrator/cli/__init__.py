"""The command line `ucloud-orchestrator`, thin over `client`."""
