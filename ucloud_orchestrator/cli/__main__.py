"""The console scripts `ucloud-orchestrator` and `uco`."""

from ucloud_orchestrator.process.extras import require_extra


def main() -> None:
    require_extra("cli")
    from ucloud_orchestrator.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
