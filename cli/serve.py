"""`traitroute serve`."""


def serve() -> None: ...
