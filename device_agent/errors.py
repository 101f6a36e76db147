"""What can keep the agent on a Linux device from starting; `__main__` prints the text as one line."""


class AgentError(Exception):
    """The agent cannot go on as it was started; the text names the thing, the reason and the way out."""


class MissingPackageError(AgentError):
    """A package the chosen runtime or transport needs is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'tinyfleet[{extra}]'")


class ProvisioningError(AgentError):
    """The provisioning file is missing or unusable."""


class EnrolmentError(AgentError):
    """The server was not reached, or did not take this device in."""
