"""`traitroute demo`."""


def demo() -> None: ...
