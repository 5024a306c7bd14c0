"""What the orchestrator costs, against the bare engine on the same server in the same run."""
