"""What a server that asks for keys needs to know who calls."""

from __future__ import annotations

from gristmill.access.keyring import Keyring
from gristmill.access.logins import Logins
from gristmill.storage.protocol import MetadataStore


class Gate:
    def __init__(self, metadata: MetadataStore) -> None:
        self.keyring = Keyring(metadata)
        self.logins = Logins(metadata, self.keyring)
        self.audit_log = metadata.audit_log
