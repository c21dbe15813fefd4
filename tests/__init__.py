"""Tests of lpt. Their Hugging Face Hub is a local server, also where none is asked for."""

from tests.support import hub_server

hub_server.use()
