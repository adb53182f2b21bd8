"""A client of any server that speaks the Batch API: behind the ``batches`` commands, and ``gristmill.Client``."""

from gristmill.client.client import Client as Client
from gristmill.client.connection import Silence as Silence
